// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// maxDeaths bounds the kinds of deaths that are told apart.
const maxDeaths = 256

// DeathKey is what deaths are told apart by.
type DeathKey struct {
	Cause  event.Cause
	Action event.Action
	NetNS  uint64
	Server event.Endpoint
	device uint32    // its index
	met    string    // the state of the connection that a SYN met
	kernel [5]string // function, reason, hook, family, refusal
}

// DeathOf is the kind of a record.
func DeathOf(d *event.Drop) DeathKey {
	key := DeathKey{Cause: d.Cause, Action: d.Action, NetNS: d.NetNS,
		kernel: [5]string{d.Kernel.Function, d.Kernel.Reason, d.Kernel.Hook,
			d.Kernel.Family, d.Kernel.Refusal}}
	if d.Server != nil {
		key.Server = *d.Server
	}
	if d.Device != nil {
		key.device = d.Device.Index
	}
	if d.Connection != nil {
		key.met = d.Connection.State
	}
	return key
}

// deaths are what died of one kind, and, as far as known, the sockets of the connections that SYNs
// met.
type deaths struct {
	count  uint64
	inodes map[uint64]bool
}

// Deaths counts, by kind, the packets that died.
type Deaths map[DeathKey]*deaths

// Add counts a death; where there are too many kinds, without where it was.
func (t Deaths) Add(key DeathKey, met *event.Connection, n uint64) {
	if t[key] == nil && len(t) >= maxDeaths {
		key = DeathKey{Cause: key.Cause, Action: key.Action}
	}
	if t[key] == nil {
		t[key] = &deaths{inodes: make(map[uint64]bool)}
	}
	t[key].count += n
	if met != nil && met.Inode != 0 && len(t[key].inodes) < maxMet {
		t[key].inodes[met.Inode] = true
	}
}

// Evidence lists them, most first, with where they were. reasons are what the diagnosis takes
// settings from.
func (t Deaths) Evidence(places *Places, met *Met, reasons *evidence.Evidence,
) (list []evidence.Death) {
	for key, of := range t {
		d := evidence.Death{Cause: key.Cause, Action: key.Action, Server: key.Server,
			NetNS: key.NetNS, Count: of.count,
			Kernel: event.Kernel{Function: key.kernel[0], Reason: key.kernel[1],
				Hook: key.kernel[2], Family: key.kernel[3], Refusal: key.kernel[4]}}
		if key.met != "" {
			d.Met = &event.Connection{State: key.met}
			if d.Holders = met.holders(of.inodes); len(d.Holders) == 0 &&
				len(of.inodes) > 0 {
				d.HoldersUnread = uint64(met.unread)
			}
		}
		places.find(&d, key.device, reasons)
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b evidence.Death) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Cause, b.Cause),
			cmp.Compare(a.Server.Port, b.Server.Port),
			a.Server.Addr.Compare(b.Server.Addr),
			cmp.Compare(a.Device, b.Device), cmp.Compare(a.Kernel.Reason,
				b.Kernel.Reason))
	})
	return list
}

// find fills in where a death was.
func (p *Places) find(d *evidence.Death, device uint32, reasons *evidence.Evidence) {
	if d.NetNS == 0 {
		return
	}
	space := p.Space(d.NetNS)
	if space == nil {
		return
	}
	at := space.Devices[device]
	d.Own, d.Enter, d.Device, d.VRF = d.NetNS == p.Own, space.Enter, at.Name, at.Kind == "vrf"
	if d.Kernel.Reason == event.NotOurAddress && space.addrs != nil {
		here := space.hasAddr(d.Server.Addr)
		d.Here = &here
	}
	for name, host := range d.Settings(reasons) {
		if value := p.sysctl(d.NetNS, space, name, host); value != "" {
			if d.Sysctls == nil {
				d.Sysctls = make(map[string]string)
			}
			d.Sysctls[name] = value
		}
	}
}

// TakenBefore are the network namespaces in which a program took packets before any listener.
func (t Deaths) TakenBefore() map[uint64]bool {
	spaces := make(map[uint64]bool)
	for key := range t {
		if key.NetNS != 0 && evidence.TakenBefore(event.Kernel{Function: key.kernel[0],
			Reason: key.kernel[1]}) {
			spaces[key.NetNS] = true
		}
	}
	return spaces
}
