// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/synspy/synspy/internal/probe/listener"
	"maps"
	"net"
	"os"
	"testing"
)

// TestArrivedRows: what is remembered of the table of arrivals is what is in it, however listeners
// make room for each other in the CPUs' states.
func TestArrivedRows(t *testing.T) {
	const listeners = 100 // more than a CPU has places for
	p, must := openHere(t)
	ports := make(map[uint16]bool)
	for range listeners {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(err)
		defer l.Close()
		ports[uint16(l.Addr().(*net.TCPAddr).Port)] = true
	}
	holders, found := holdersHere(t, p)
	must(p.Start(found, func(uint64) bool { return true }))
	var sockets []uint64
	addrs := make(map[uint64]int)
	for _, h := range holders {
		if h.PID == uint32(os.Getpid()) && ports[h.Listener.Port] {
			sockets = append(sockets, h.Listener.Socket)
			addrs[h.Listener.Socket] = int(h.Listener.Port)
		}
	}
	if len(sockets) != listeners {
		t.Fatalf("%d listeners are listed, want %d", len(sockets), listeners)
	}
	connect := func(to []uint64) {
		for _, socket := range to {
			addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addrs[socket]}
			conn, err := net.DialTCP("tcp4", nil, addr)
			must(err)
			must(conn.Close())
		}
	}
	at := func(asked []uint64) map[uint64]uint64 {
		t.Helper()
		sums, syns := make(map[uint64]listener.Arrivals), make(map[uint64]uint64)
		must(p.ArrivedAt(asked, sums))
		for socket, sum := range sums {
			if addrs[socket] != 0 && sum.Syn > 0 { // ACKs may still be on their way
				syns[socket] = sum.Syn
			}
		}
		return syns
	}
	for round := range 12 {
		connect(sockets[round*5 : round*5+40])
		if round == 7 {
			must(p.Depart(sockets[50]))
			must(p.Depart(sockets[99]))
		}
		var got map[uint64]uint64
		switch round % 3 {
		case 0:
			got = at(sockets)
		case 1:
			at(sockets[:20])
			got = at(nil)
		case 2:
			at(nil)
			connect(sockets[:3])
			got = at(sockets)
		}
		p.Table = listener.ArrivedRows{}
		if want := at(nil); !maps.Equal(got, want) {
			t.Fatalf("round %d: remembered\n%v, there are\n%v", round, got, want)
		}
		if len(got) < 40 {
			t.Fatalf("round %d: arrivals at %d listeners", round, len(got))
		}
	}
}
