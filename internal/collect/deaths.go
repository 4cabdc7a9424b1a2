// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
)

// deathKey is what deaths are told apart by.
type deathKey struct {
	cause  event.Cause
	action event.Action
	netns  uint64
	device uint32 // its index
	server event.Endpoint
	met    string    // the state of the connection that a SYN met
	kernel [5]string // function, reason, hook, family, refusal
}

func deathOf(d *event.Drop) deathKey {
	key := deathKey{cause: d.Cause, action: d.Action, netns: d.NetNS,
		kernel: [5]string{d.Kernel.Function, d.Kernel.Reason, d.Kernel.Hook,
			d.Kernel.Family, d.Kernel.Refusal}}
	if d.Server != nil {
		key.server = *d.Server
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

// deathTable counts deaths by kind.
type deathTable map[deathKey]*deaths

// add counts a death; where there are too many kinds, without where it was.
func (t deathTable) add(key deathKey, met *event.Connection, n uint64) {
	if t[key] == nil && len(t) >= maxDeaths {
		key = deathKey{cause: key.cause, action: key.action}
	}
	if t[key] == nil {
		t[key] = &deaths{inodes: make(map[uint64]bool)}
	}
	t[key].count += n
	if met != nil && met.Inode != 0 && len(t[key].inodes) < maxMet {
		t[key].inodes[met.Inode] = true
	}
}

// tell lists them, most first.
func (t deathTable) tell(places *deathPlaces) (list []evidence.Death) {
	for key, of := range t {
		d := evidence.Death{Cause: key.cause, Action: key.action, Server: key.server,
			NetNS: key.netns, Count: of.count,
			Kernel: event.Kernel{Function: key.kernel[0], Reason: key.kernel[1],
				Hook: key.kernel[2], Family: key.kernel[3], Refusal: key.kernel[4]}}
		if key.met != "" {
			d.Met = &event.Connection{State: key.met}
			if d.Holders = places.holders(of.inodes); len(d.Holders) == 0 &&
				len(of.inodes) > 0 {
				d.HoldersUnread = uint64(places.c.met.unread)
			}
		}
		places.find(&d, key.device)
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b evidence.Death) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Cause, b.Cause),
			cmp.Compare(a.Server.Port, b.Server.Port),
			a.Server.Addr.Compare(b.Server.Addr), cmp.Compare(a.Device,
				b.Device), cmp.Compare(a.Kernel.Reason, b.Kernel.Reason))
	})
	return list
}

// Bounds of what is looked up about deaths.
const (
	maxMet         = 64 // connections of one kind whose processes are looked for
	maxDeathSpaces = 64 // network namespaces that are entered
	metEvery       = 2 * time.Second
	metLooks       = 5 // walks over all processes in a window, but for the last one
)

// metWatch finds out who has the connections that SYNs met: the SYN's client may end them at once.
type metWatch struct {
	open  map[uint64]bool // whose process is not known yet
	known map[uint64][]owner.Holder
	at    time.Time
	looks int
	done  chan metLook
	// unread is how many processes refused to be read at the last look.
	unread int
}

// metLook is what a walk over all processes found.
type metLook struct {
	found  []owner.Holder
	unread int
}

func newMetWatch() *metWatch {
	return &metWatch{open: make(map[uint64]bool), known: make(map[uint64][]owner.Holder)}
}

func (w *metWatch) add(met *event.Connection) {
	if met != nil && met.Inode != 0 && w.known[met.Inode] == nil && len(w.open) < maxMet {
		w.open[met.Inode] = true
	}
}

// tick has all processes walked over if there is somebody to be found, behind the caller's back;
// last waits for it.
func (w *metWatch) tick(last bool) {
	if w.done != nil {
		select {
		case found := <-w.done:
			w.take(found)
		default:
			if !last {
				return
			}
			w.take(<-w.done)
		}
	}
	if len(w.open) == 0 || !last && (w.looks >= metLooks || time.Since(w.at) < metEvery) {
		return
	}
	w.at = time.Now()
	w.looks++
	wanted, done := maps.Clone(w.open), make(chan metLook, 1)
	w.done = done
	go func() {
		found, unread, err := owner.ScanProc("/proc",
			func(inode uint64) bool { return wanted[inode] })
		if err != nil {
			found = nil
		}
		done <- metLook{found, unread}
	}()
	if last {
		w.take(<-w.done)
	}
}

func (w *metWatch) take(look metLook) {
	w.done, w.unread = nil, look.unread
	for _, h := range look.found {
		w.known[h.Inode] = append(w.known[h.Inode], h)
		delete(w.open, h.Inode)
	}
}

// deathPlaces looks up where deaths were: how to get into the namespace, the device's name,
// settings.
type deathPlaces struct {
	c      *collector
	own    uint64
	spaces []kernel.NetNS
	known  map[uint64]*deathSpace
}

// deathSpace is a network namespace in which packets died.
type deathSpace struct {
	enter   evidence.Enter
	paths   []string
	devices map[uint32]kernel.Device
	addrs   []net.Addr // on its devices; nil where they could not be read
	sysctls map[string]string
}

func (c *collector) newDeathPlaces() *deathPlaces {
	p := &deathPlaces{c: c, known: make(map[uint64]*deathSpace)}
	var err error
	if p.own, err = kernel.Inode("/proc/thread-self/ns/net"); err != nil {
		c.session.Log.Debug("read own network namespace", "error", err)
	}
	if p.spaces, _, err = kernel.NetNamespaces("/proc"); err != nil {
		c.session.Log.Debug("list network namespaces", "error", err)
	}
	return p
}

// holders lists the processes that have any of the sockets.
func (p *deathPlaces) holders(inodes map[uint64]bool) (list []event.Process) {
	for inode := range inodes {
		for _, h := range p.c.met.known[inode] {
			if !slices.ContainsFunc(list,
				func(o event.Process) bool { return o.PID == h.PID }) {
				list = append(list, event.Process{PID: h.PID, Comm: h.Comm})
			}
		}
	}
	slices.SortFunc(list, func(a, b event.Process) int { return cmp.Compare(a.PID, b.PID) })
	return list
}

// find fills in where a death was.
func (p *deathPlaces) find(d *evidence.Death, device uint32) {
	if d.NetNS == 0 {
		return
	}
	space := p.space(d.NetNS)
	if space == nil {
		return
	}
	at := space.devices[device]
	d.Own, d.Enter, d.Device, d.VRF = d.NetNS == p.own, space.enter, at.Name, at.Kind == "vrf"
	if d.Kernel.Reason == event.NotOurAddress && space.addrs != nil {
		here := hasAddr(space.addrs, d.Server.Addr)
		d.Here = &here
	}
	for name, host := range d.Settings(&p.c.Evidence) {
		if _, known := space.sysctls[name]; !known && host {
			space.sysctls[name] = readSysctl(name)
		} else if !known {
			p.enter(d.NetNS, space, func() error {
				space.sysctls[name] = readSysctl(name)
				return nil
			})
		}
		if value := space.sysctls[name]; value != "" {
			if d.Sysctls == nil {
				d.Sysctls = make(map[string]string)
			}
			d.Sysctls[name] = value
		}
	}
}

// has tells whether an address is one of these.
func hasAddr(list []net.Addr, addr netip.Addr) bool {
	return slices.ContainsFunc(list, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == addr.Unmap()
	})
}

// space is a namespace with its devices, nil where there are too many.
func (p *deathPlaces) space(inode uint64) *deathSpace {
	if s := p.known[inode]; s != nil {
		return s
	}
	if len(p.known) >= maxDeathSpaces {
		return nil
	}
	s := &deathSpace{devices: make(map[uint32]kernel.Device), sysctls: make(map[string]string)}
	p.known[inode] = s
	if inode == p.own {
		s.paths = []string{""}
	} else if i := slices.IndexFunc(p.spaces, func(ns kernel.NetNS) bool { return ns.Inode == inode }); i >= 0 {
		for _, name := range p.spaces[i].Names {
			s.enter.Name = cmp.Or(s.enter.Name, name)
			s.paths = append(s.paths, kernel.NamedNetNS(name))
		}
		for _, pid := range p.spaces[i].Through {
			s.enter.PID = cmp.Or(s.enter.PID, pid)
			s.paths = append(s.paths, processNetNS(pid))
		}
	}
	p.enter(inode, s, func() error {
		list, err := kernel.Devices()
		for _, d := range list {
			s.devices[d.Index] = d
		}
		var unread error
		s.addrs, unread = net.InterfaceAddrs()
		return errors.Join(err, unread)
	})
	return s
}

// enter runs f in a namespace, if there is a way in.
func (p *deathPlaces) enter(inode uint64, s *deathSpace, f func() error) {
	err := fmt.Errorf("no way into it was found")
	for _, path := range s.paths {
		if err = kernel.InNetNS(path, inode, f); err == nil {
			return
		}
	}
	p.c.session.Log.Debug("look into a network namespace", "netns", inode, "error", err)
}

// readSysctl reads a setting of the calling thread's network namespace, or, where only the first
// one has it, of that; empty where it cannot be read.
func readSysctl(name string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], "/", ".") // sysctl's way of writing a dot
	}
	text, err := os.ReadFile(filepath.Join("/proc/sys", filepath.Join(parts...)))
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text)), " ")
}
