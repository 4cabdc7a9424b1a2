// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
)

// TestListenersComeAndGo has more listeners come and go than are remembered: what is kept of them
// does not grow, the last ones are still known, and so are those that listen.
func TestListenersComeAndGo(t *testing.T) {
	const (
		many   = 100_000
		stays  = many + 1
		again  = many / 2 // listens again after it closed
		passed = 2 * settleAfter
	)
	l := NewListeners(load.Filter{})
	opened := func(socket uint64) *message.Message {
		return &message.Message{Kind: message.KindOpened,
			Listener: message.Listener{Known: true, Member: true, Socket: socket,
				Inode: socket,
				NetNS: 1, Addr: netip.IPv4Unspecified(), Port: uint16(socket)}}
	}
	l.Open(opened(stays))
	still := make(map[uint64]bool) // a CPU counts for each hundredth until the next time
	tick := func() {
		for socket, since := range l.closed {
			l.closed[socket] = since.Add(-passed)
		}
		l.Departed()
		old := l.Outdated()
		var aside []uint64
		for _, socket := range old {
			if socket%100 == 0 && !still[socket] {
				aside = append(aside, socket)
				still[socket] = true
			}
		}
		l.Forget(old, aside)
	}
	for socket := uint64(1); socket <= many; socket++ {
		l.Open(opened(socket))
		l.Close(socket, 1)
		if socket == again {
			tick()
			l.Open(opened(socket))
		}
		if socket%1000 == 0 {
			tick()
		}
	}
	tick()
	const most = maxGone + maxGone/50
	if len(l.known) > most || len(l.places) > most || len(l.gone) > most || len(l.closed) > 0 {
		t.Errorf("%d listeners, %d places, %d gone and %d closed are kept of %d",
			len(l.known), len(l.places), len(l.gone), len(l.closed), many)
	}
	for socket, want := range map[uint64]bool{stays: true, again: true, many: true,
		many - maxGone/2: true, 1: false, again + 1: false} {
		if l.Remembers(socket) != want {
			t.Errorf("socket %d: remembered %t, want %t", socket, !want, want)
		}
	}
}

// TestListenersMakeRoom has few listeners forgotten while there is room for all, and those that
// closed when more listen than that.
func TestListenersMakeRoom(t *testing.T) {
	l := NewListeners(load.Filter{})
	l.Keep = MaxKnown
	socket := uint64(0)
	open := func(n int) {
		for range n {
			socket++
			l.Add(message.Listener{Known: true, Member: true, Socket: socket, NetNS: 1,
				Port: 80})
		}
	}
	open(1000)
	for s := uint64(1); s <= 1000; s++ {
		l.Close(s, 1)
		l.closed[s] = time.Now().Add(-2 * settleAfter)
	}
	l.Departed()
	if old := l.Outdated(); len(old) > 0 {
		t.Errorf("%d are outdated while there is room", len(old))
	}
	clear(l.places) // all at one place would take long
	for len(l.known) < MaxKnown-spareRoom+10 {
		socket++
		l.known[socket] = &known{listener: message.Listener{Socket: socket}}
	}
	if old := l.Outdated(); len(old) != 10 {
		t.Errorf("%d are outdated, want 10", len(old))
	}
}

// TestListenersElsewhere: where one namespace is watched, no closing is told of the others; what is
// not listed there any more is gone.
func TestListenersElsewhere(t *testing.T) {
	const watched, elsewhere = 1, 2
	l := NewListeners(load.Filter{NetNS: watched})
	list := func(sockets ...uint64) {
		l.beginList()
		for _, socket := range sockets {
			l.Add(message.Listener{Known: true, Member: true, Socket: socket,
				NetNS: elsewhere, Port: uint16(socket)})
		}
		l.endList()
	}
	l.Add(message.Listener{Known: true, Member: true, Socket: 1, NetNS: watched,
		Port: 1}) // of the kernel itself: it is not listed
	for socket := uint64(2); socket < 1000; socket += 2 {
		list(socket, socket+1)
		list(socket + 1)
	}
	if len(l.known) != 2 || len(l.places) != 2 || !l.Remembers(1) || !l.Remembers(999) {
		t.Errorf("%d listeners and %d places, with 1: %t, 999: %t", len(l.known),
			len(l.places), l.Remembers(1), l.Remembers(999))
	}
}

// TestPlaces has listeners share places and leave them, each in turn.
func TestPlaces(t *testing.T) {
	const members = 4
	at := func(socket uint64, port uint16) message.Listener {
		return message.Listener{Known: true, Member: true, Socket: socket, NetNS: 1,
			Port: port}
	}
	for leaves := range uint64(members) {
		l := NewListeners(load.Filter{})
		for socket := range uint64(members) {
			l.Add(at(socket+1, 80))
		}
		l.Add(at(members+1, 81)) // alone
		l.Add(at(leaves+1, 82))  // listens elsewhere now
		one := at(0, 80)
		group := l.Group(&one)
		if len(group) != members-1 || slices.Contains(group, leaves+1) {
			t.Errorf("%d left, and the group is %d", leaves+1, group)
		}
		sharing := l.Sharing()
		if len(sharing) != members-1 || slices.ContainsFunc(sharing,
			func(l message.Listener) bool { return l.Port != 80 }) {
			t.Errorf("%d left, and sharing are %+v", leaves+1, sharing)
		}
		one = at(0, 83)
		if group := l.Group(&one); len(group) > 0 {
			t.Errorf("%d are where nobody listens", group)
		}
	}
}
