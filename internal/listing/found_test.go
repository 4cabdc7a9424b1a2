// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/message"
)

// TestCountGroups: members of a group share a place and a device; where devices are not known
// nothing is said.
func TestCountGroups(t *testing.T) {
	any, other := netip.IPv4Unspecified(), netip.MustParseAddr("10.0.0.1")
	none, eth := uint32(0), uint32(2)
	listener := func(inode uint64, addr netip.Addr, port uint16, iface *uint32,
		queued uint32) *found {
		return &found{inode: inode, netns: 1, addr: addr, port: port, iface: iface,
			limited: true, accept: event.Queue{Len: queued, Limit: 3}}
	}
	all := []*found{listener(1, any, 80, &none, 4), listener(2, any, 80, &none, 3),
		listener(3, any, 80, &eth, 4),
		listener(4, other, 80, &none, 4), listener(5, any, 90, nil, 4), listener(6, any, 90,
			nil, 4), listener(7, any, 80, &none, 4)}
	slices.SortFunc(all, (*found).compare)
	countGroups(all)
	for _, f := range all {
		grouped := f.inode == 1 || f.inode == 2 || f.inode == 7
		if (f.group != nil) != grouped ||
			grouped && *f.group != (event.Reuseport{Members: 3, Full: 2}) {
			t.Errorf("listener %d: group %+v", f.inode, f.group)
		}
	}
}

// TestDescribe: records are made in the same memory one after the other, and what one has is not in
// the next.
func TestDescribe(t *testing.T) {
	list := foundList{byInode: make(map[uint64]*found), spaces: make(map[uint64]*foundSpace)}
	limit, drops, only := uint32(128), uint32(7), true
	space := &foundSpace{inode: 1, name: "blue",
		settings: kernel.ListenSettings{Somaxconn: &limit}}
	list.add(&kernel.Listening{Addr: netip.IPv4Unspecified(), Port: 80, Inode: 10, Cookie: 1,
		Limit: &limit, Drops: &drops, V6Only: &only}, space)
	list.add(&kernel.Listening{Addr: netip.IPv4Unspecified(), Port: 81, Inode: 11}, space)
	list.hold(&message.Listener{Inode: 10, Socket: 5, Cgroup: 3,
		Accept: event.Queue{Len: 1, Limit: 128}, Syn: event.SynQueue{Len: 2, Limit: 128}})
	list.hold(&message.Listener{Inode: 12, NetNS: 2, Port: 82,
		Socket: 6}) // of a namespace that was not listed
	d := describer{owners: owner.New(t.TempDir(), nil)}
	full := *d.describe(list.all[0])
	if l := full.Listener; full.NetNS != "blue" || full.Drops.Count != 7 ||
		*full.V6Only != true || full.Backlog.By != event.BacklogEqual ||
		l.AcceptQueue.Len != 1 || l.SynQueue.Len != 2 || l.Cgroup.ID != 3 || l.Cookie != 1 {
		t.Errorf("%+v", full)
	}
	if l := d.describe(list.all[1]); l.Drops != nil || l.V6Only != nil || l.Backlog != nil ||
		l.Listener.AcceptQueue != nil ||
		l.Listener.SynQueue != nil || l.Listener.Cgroup != nil || l.NetNS != "blue" ||
		l.OwnersKnown {
		t.Errorf("%+v", l)
	}
	if l := d.describe(list.all[2]); l.NetNS != "" || l.Listener.NetNS != 2 ||
		l.Listener.AcceptQueue == nil || l.Backlog.Somaxconn != nil {
		t.Errorf("%+v", l)
	}
	if n := testing.AllocsPerRun(100, func() { d.describe(list.all[1]) }); n > 0 {
		t.Errorf("%v allocations a record", n)
	}
}
