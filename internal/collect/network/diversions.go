// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/device"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// Bounds of what is read and kept.
const (
	maxDiverted       = 8  // ports that are asked about; for more, diversions are only said to exist
	maxdivertedSpaces = 64 // network namespaces
	maxDiversions     = 16
)

// Diverted is where SYNs of the ports asked about are sent.
type Diverted struct {
	ports  []uint16
	spaces []divertedSpace
	list   []evidence.Diversion
	doubts []evidence.Doubt
	gave   []evidence.Diversion // without a change to the packet, as records of what died show
}

// divertedSpace is a network namespace whose rules and connections are read.
type divertedSpace struct {
	inode uint64
	own   bool
	enter evidence.Enter
	paths []string
	drops map[uint64]uint32 // of listeners when the window began, by inode
}

// FindDiversions looks for where rules and connections of the network namespaces asked about send
// the SYNs of the ports asked about. Nothing is looked for where no port is.
func FindDiversions(f *load.Filter) *Diverted {
	d := &Diverted{}
	for _, r := range f.Ports {
		for port := int(r.Low); port <= int(r.High) && len(d.ports) <= maxDiverted; port++ {
			d.ports = append(d.ports, uint16(port))
		}
	}
	if len(d.ports) == 0 {
		return d
	}
	d.listSpaces(f.NetNS)
	nftables := kernel.HasNFTables() // asking would make the kernel load it
	for i := range d.spaces {
		d.spaces[i].in(func() error {
			s := &d.spaces[i]
			if nftables {
				d.rules(s)
			}
			d.oldTables(s)
			d.connections(s, nil)
			return s.count()
		})
	}
	return d
}

// listSpaces lists the namespace asked about, or synspy's own, the first process's and others.
func (d *Diverted) listSpaces(only uint64) {
	own, err := kernel.OwnNetNS()
	if err != nil {
		return
	}
	known, _, err := kernel.NetNamespaces("/proc")
	if err != nil {
		d.doubt(0, fmt.Sprintf("not all network namespaces could be listed: %v", err))
	}
	first, _ := kernel.Inode(kernel.ProcessNetNS(1))
	rank := func(ns kernel.NetNS) int {
		switch ns.Inode {
		case own:
			return 0
		case first:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(known,
		func(a, b kernel.NetNS) int { return cmp.Compare(rank(a), rank(b)) })
	for _, ns := range known {
		if only != 0 && ns.Inode != only {
			continue
		}
		if len(d.spaces) == maxdivertedSpaces {
			d.doubt(0, "the nat rules of further network namespaces were not read")
			return
		}
		space := divertedSpace{inode: ns.Inode, own: ns.Inode == own}
		space.enter, space.paths = waysInto(&ns)
		if space.own {
			space.paths = []string{""}
		}
		d.spaces = append(d.spaces, space)
	}
}

// in runs f in the namespace; where there is no way in, it is not run.
func (s *divertedSpace) in(f func() error) {
	for _, path := range s.paths {
		if kernel.InNetNS(path, s.inode, f) == nil {
			return
		}
	}
}

// count keeps how much the listeners of the calling thread's namespace have dropped.
func (s *divertedSpace) count() error {
	list, err := kernel.ListeningHere()
	s.drops = make(map[uint64]uint32, len(list))
	for _, l := range list {
		if l.Drops != nil {
			s.drops[l.Inode] = *l.Drops
		}
	}
	return err
}

func (d *Diverted) doubt(netns uint64, why string) {
	doubt := evidence.Doubt{NetNS: netns, Why: why}
	for i := range d.spaces {
		if s := &d.spaces[i]; s.inode == netns {
			doubt.Own, doubt.Enter = s.own, s.enter
		}
	}
	if len(d.doubts) < maxDiversions && !slices.Contains(d.doubts, doubt) {
		d.doubts = append(d.doubts, doubt)
	}
}

// rules reads what nat and tproxy rules of the calling thread's namespace do with the ports.
func (d *Diverted) rules(s *divertedSpace) {
	rules, err := kernel.Diversions()
	if err != nil {
		d.doubt(s.inode, fmt.Sprintf("nat rules could not be read: %v", err))
	}
	for i := range rules {
		r := &rules[i]
		at := slices.IndexFunc(d.ports, r.For)
		if len(r.Ports) > 0 && at < 0 {
			continue // it is for other ports
		}
		if at < 0 || r.To.Port() == 0 && !r.To.Addr().IsValid() {
			d.doubt(s.inode, fmt.Sprintf("a %s rule in %s may send SYNs elsewhere",
				r.Kind, evidence.Said(r.Where)))
			continue
		}
		for _, port := range d.ports {
			if !r.For(port) {
				continue
			}
			to := netip.AddrPortFrom(r.To.Addr(), cmp.Or(r.To.Port(), port))
			d.add(s, evidence.Diversion{By: r.Kind + " rule in " + r.Where,
				Transparent: r.Kind == "tproxy",
				From:        netip.AddrPortFrom(netip.Addr{}, port), To: to}, 0)
		}
	}
}

// oldTables notes what was not read.
func (d *Diverted) oldTables(s *divertedSpace) {
	for _, table := range kernel.OldTables() {
		if table == "nat" || table == "mangle" {
			d.doubt(s.inode,
				fmt.Sprintf("the %s table of iptables (legacy) has rules that were not read: iptables-legacy -t %s -S", table, table))
		}
	}
}

// connections reads where connections of the calling thread's namespace to the ports are sent; died
// are the clients whose SYNs died, and where those died.
func (d *Diverted) connections(s *divertedSpace, died Flows) {
	for _, port := range d.ports[:min(len(d.ports), maxDiverted)] {
		tracked, err := kernel.TrackedTo(port)
		if err != nil {
			d.doubt(s.inode, err.Error())
		}
		for _, t := range tracked {
			at, dead := died[t.Client]
			d.add(s, evidence.Diversion{By: "connection tracking", From: t.Asked,
				To: t.Given, Proven: dead && at == t.Given}, 1)
		}
	}
}

// add takes a diversion, or one more connection that went its way.
func (d *Diverted) add(s *divertedSpace, v evidence.Diversion, connections uint64) {
	v.NetNS, v.Own, v.Enter = s.inode, s.own, s.enter
	i := slices.IndexFunc(d.list, func(o evidence.Diversion) bool {
		return o.NetNS == v.NetNS && o.By == v.By && o.From == v.From && o.To == v.To
	})
	if i < 0 {
		if len(d.list) == maxDiversions {
			return
		}
		i = len(d.list)
		d.list = append(d.list, v)
	}
	d.list[i].Connections += connections
	d.list[i].Proven = d.list[i].Proven || v.Proven
}

// Mapped is what the diversions add to the filter. A rule that redirects keeps packets in its
// namespace, others may send them to any.
func (d *Diverted) Mapped() (list []load.Mapped) {
	for _, v := range d.list {
		m := load.Mapped{Addr: v.To.Addr(), Port: v.To.Port()}
		if !m.Addr.IsValid() {
			m.NetNS = v.NetNS
		}
		if !slices.Contains(list, m) && len(list) < load.MaxMapped {
			list = append(list, m)
		}
	}
	return list
}

// settle reads the connections once more, when the window has ended: those of the clients whose
// SYNs died say where they wanted to.
func (d *Diverted) settle(died Flows) {
	for i := range d.list {
		d.list[i].Connections = 0
	}
	for i := range d.spaces {
		d.spaces[i].in(func() error {
			d.connections(&d.spaces[i], died)
			return nil
		})
	}
}

// Given notes a packet that died at a listener of another port than the one that it was sent to.
func (d *Diverted) Given(drop *event.Drop) {
	if drop.Listener == nil || drop.Server == nil || drop.Server.Port == drop.Listener.Port ||
		!slices.Contains(d.ports, drop.Server.Port) {
		return
	}
	v := evidence.Diversion{By: "TPROXY, an sk_lookup program or bpf_sk_assign",
		Transparent: true, Proven: true, NetNS: drop.Listener.NetNS,
		From: netip.AddrPortFrom(netip.Addr{}, drop.Server.Port),
		To:   netip.AddrPortFrom(drop.Listener.Addr, drop.Listener.Port)}
	if len(d.gave) < maxDiversions && !slices.Contains(d.gave, v) {
		d.gave = append(d.gave, v)
	}
}

// Flows are those of SYNs that died, by client: a bounded sample.
type Flows map[netip.AddrPort]netip.AddrPort

const maxFlows = 4096

// Add takes a record.
func (f Flows) Add(d *event.Drop) {
	if d.Client != nil && d.Server != nil && len(f) < maxFlows {
		client := netip.AddrPortFrom(d.Client.Addr, d.Client.Port)
		f[client] = netip.AddrPortFrom(d.Server.Addr, d.Server.Port)
	}
}

// Evidence reads once more, when the window has ended, where SYNs of the ports asked about were
// sent, and says what else may have sent them elsewhere.
func (d *Diverted) Evidence(died Flows) ([]evidence.Diversion, []evidence.Doubt) {
	if len(d.ports) == 0 {
		return nil, nil
	}
	d.settle(died)
	programs, err := device.SkLookups()
	if err != nil {
		d.doubt(0, err.Error())
	}
	for i := range d.spaces {
		for _, name := range programs[d.spaces[i].inode] {
			d.doubt(d.spaces[i].inode,
				"the sk_lookup program "+evidence.Said(name)+
					" gives packets to sockets of its choice")
		}
	}
	for _, v := range d.gave {
		for i := range d.spaces {
			if s := &d.spaces[i]; s.inode == v.NetNS {
				v.Own, v.Enter = s.own, s.enter
			}
		}
		d.list = append(d.list, v)
	}
	return d.list, d.doubts
}

// Others lists the listeners that the filters do not ask for and that dropped, or are full.
func (d *Diverted) Others(s *session.Session) (list []evidence.Other) {
	if len(d.ports) == 0 {
		return nil
	}
	sockets := s.Listeners.Inodes()
	for i := range d.spaces {
		list = append(list, d.spaces[i].others(s, sockets)...)
	}
	list = list[:min(len(list), maxDiversions)]
	slices.SortStableFunc(list, func(a, b evidence.Other) int {
		return cmp.Compare(evidence.Value(b.Drops), evidence.Value(a.Drops))
	})
	return list
}

func (s *divertedSpace) others(of *session.Session, sockets map[uint64]uint64,
) (list []evidence.Other) {
	var now []kernel.Listening
	s.in(func() (err error) {
		now, err = kernel.ListeningHere()
		return err
	})
	for _, l := range now {
		at := event.Listener{Addr: l.Addr, Port: l.Port, Cookie: l.Cookie, Inode: l.Inode,
			NetNS: s.inode}
		if of.Listeners.Matches(&message.Listener{Addr: l.Addr, Port: l.Port, NetNS: s.inode,
			Socket: sockets[l.Inode]}) {
			continue
		}
		o := evidence.Other{Listener: at, Own: s.own, Enter: s.enter}
		if before, ok := s.drops[l.Inode]; ok && l.Drops != nil && *l.Drops != before {
			n := uint64(*l.Drops - before)
			o.Drops = &n
		} else if l.Limit == nil || l.Len <= *l.Limit {
			continue
		}
		if socket := sockets[l.Inode]; socket != 0 {
			o.Processes = of.Owners.Processes(socket, kernel.Monotonic())
		}
		list = append(list, o)
	}
	return list
}
