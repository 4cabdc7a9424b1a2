// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// found is a listener and what was gathered of it. A machine may have a hundred thousand: it is
// made a record of when it is written, and that is not kept.
type found struct {
	addr          netip.Addr
	port          uint16
	limited       bool // accept is known
	handshakes    bool // syn is known
	dropped       bool // drops is known
	mptcp         bool
	ownersKnown   bool // nobody's holding was hidden
	v6only        *bool
	iface         *uint32
	accept        event.Queue
	syn           event.SynQueue
	drops         uint32
	netns         uint64
	inode, cookie uint64
	cgroup        uint64
	socket        uint64           // as the probe names it; 0 where it did not
	space         *foundSpace      // nil where the namespace was not listed
	group         *event.Reuseport // nil where it is the only one at its place
	rates         *event.Rates

	looked *looked // nil where nobody's threads were looked at

	weight float64 // what it is sorted by before its address
	comm   string
}

// looked is who holds a listener, with what their threads do.
type looked struct {
	processes []event.Process
	asleep    []string
}

// foundSpace is a network namespace.
type foundSpace struct {
	inode    uint64
	name     string
	settings kernel.ListenSettings
}

// foundList is what was found so far.
type foundList struct {
	all     []*found
	byInode map[uint64]*found // but for those that no process can hold
	spaces  map[uint64]*foundSpace
}

// read lists a namespace's listeners: of one's own as it is, of others by entering them,
// or, where that is refused, through a process.
func (list *foundList) read(ns kernel.NetNS, space *foundSpace) error {
	if own, err := kernel.Inode("/proc/self/ns/net"); err == nil && own == ns.Inode {
		return list.enter("", 0, space)
	}
	var paths []string
	for _, pid := range ns.Through[:min(len(ns.Through), session.ThroughAtMost)] {
		paths = append(paths, fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	for _, name := range ns.Names {
		paths = append(paths, kernel.NamedNetNS(name))
	}
	var errs []error
	for _, path := range paths {
		err := list.enter(path, ns.Inode, space)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	for _, pid := range ns.Through[:min(len(ns.Through), session.ThroughAtMost)] {
		files, err := kernel.ListeningFiles(fmt.Sprintf("/proc/%d/net", pid))
		if have, failed := kernel.Inode(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil &&
			failed == nil && have == ns.Inode {
			for i := range files {
				list.add(&files[i], space)
			}
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// enter reads a namespace from inside. What it added before it failed is taken out again.
func (list *foundList) enter(path string, inode uint64, space *foundSpace) error {
	before := len(list.all)
	settings, err := kernel.ListeningSockets(path, inode,
		func(s *kernel.Listening) { list.add(s, space) })
	if err != nil {
		for _, f := range list.all[before:] {
			delete(list.byInode, f.inode)
		}
		list.all = list.all[:before]
		return err
	}
	space.settings = settings
	return nil
}

func (list *foundList) add(s *kernel.Listening, space *foundSpace) {
	f := &found{addr: s.Addr, port: s.Port, cookie: s.Cookie, inode: s.Inode,
		netns: space.inode, space: space,
		iface: s.Iface, v6only: s.V6Only, mptcp: s.MPTCP}
	if s.Limit != nil {
		f.limited, f.accept = true, event.Queue{Len: s.Len, Limit: *s.Limit}
	}
	if s.Drops != nil {
		f.dropped, f.drops = true, *s.Drops
	}
	list.keep(f)
}

func (list *foundList) keep(f *found) {
	list.all = append(list.all, f)
	if f.inode != 0 {
		list.byInode[f.inode] = f
	}
}

// hold takes what the kernel side says of a listener that a process holds.
func (list *foundList) hold(s *message.Listener) {
	f := list.byInode[s.Inode]
	if f == nil {
		f = &found{addr: s.Addr, port: s.Port, cookie: s.Cookie, inode: s.Inode,
			netns: s.NetNS, space: list.spaces[s.NetNS]}
		list.keep(f)
	}
	f.socket, f.cgroup = s.Socket, s.Cgroup
	f.limited, f.accept = true, s.Accept
	f.handshakes, f.syn = true, s.Syn
}

// inodes are those of all, which the owners' table has them by.
func (list *foundList) inodes() []uint64 {
	inodes := make([]uint64, len(list.all))
	for i, f := range list.all {
		inodes[i] = f.inode
	}
	return inodes
}

// countGroups counts the members of SO_REUSEPORT groups: no two other sockets may listen at
// one place, and on the same device. The listeners are in order.
func countGroups(all []*found) {
	for from, to := 0, 0; from < len(all); from = to {
		for to < len(all) && all[from].samePlace(all[to]) {
			to++
		}
		if to-from > 1 {
			countMembers(all[from:to])
		}
	}
}

func (f *found) samePlace(b *found) bool {
	return f.netns == b.netns && f.port == b.port && f.addr == b.addr
}

// countMembers does it for those of one place.
func countMembers(all []*found) {
	groups := make(map[uint32][]*found)
	for _, f := range all {
		if f.iface != nil { // else devices are not known: they may be why
			groups[*f.iface] = append(groups[*f.iface], f)
		}
	}
	for _, members := range groups {
		if len(members) < 2 {
			continue
		}
		counted := &event.Reuseport{Members: uint32(len(members))}
		for _, f := range members {
			f.group = counted
			if f.limited && f.accept.Len > f.accept.Limit {
				counted.Full++
			}
		}
	}
}

func (f *found) compare(b *found) int {
	return cmp.Or(cmp.Compare(f.netns, b.netns), cmp.Compare(f.port, b.port),
		f.addr.Compare(b.addr),
		cmp.Compare(f.inode, b.inode), cmp.Compare(f.cookie, b.cookie))
}

// describer makes records of listeners, one at a time in the same memory.
type describer struct {
	owners *owner.Table
	at     event.Time
	mono   uint64 // the same, CLOCK_MONOTONIC, ns

	answer    owner.Answer
	listing   event.Listing
	accept    event.Queue
	syn       event.SynQueue
	cgroup    event.Cgroup
	drops     event.Drops
	reuseport event.Reuseport
}

// describe returns what is known of a listener, until the next one is asked for.
func (d *describer) describe(f *found) *event.Listing {
	l := &d.listing
	*l = event.Listing{Header: event.Head("listener"), Time: d.at, V6Only: f.v6only,
		MPTCP: f.mptcp, Rates: f.rates,
		Listener: event.Listener{Addr: f.addr, Port: f.port, Cookie: f.cookie,
			Inode: f.inode, NetNS: f.netns}}
	if f.limited {
		d.accept = f.accept
		l.Listener.AcceptQueue = &d.accept
	}
	if f.handshakes {
		d.syn = f.syn
		l.Listener.SynQueue = &d.syn
	}
	if f.cgroup != 0 {
		d.cgroup = event.Cgroup{ID: f.cgroup}
		l.Listener.Cgroup = &d.cgroup
	}
	if f.group != nil {
		d.reuseport = *f.group
		l.Listener.Reuseport = &d.reuseport
	}
	if f.dropped {
		d.drops = event.Drops{Count: uint64(f.drops), Approximate: true}
		l.Drops = &d.drops
	}
	var settings kernel.ListenSettings
	if f.space != nil {
		l.NetNS, settings = f.space.name, f.space.settings
	}
	l.Backlog = backlogOf(l.Listener.AcceptQueue, settings)
	var asleep []string
	if f.looked != nil {
		l.Processes, asleep = f.looked.processes, f.looked.asleep
	} else {
		l.Processes = d.owners.Ask(&d.answer, f.inode, d.mono)
	}
	l.OwnersKnown = f.ownersKnown || len(l.Processes) > 0
	l.Cgroup, l.Container, l.Pod = owner.Top(l.Processes)
	l.Warnings = warningsOf(l, settings, asleep)
	return l
}
