// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/listener"
)

// TestArrivedAt: the same is read whether listeners are looked up, found on a walk of the table, or all counted, and of so many
// that they make each other leave the CPUs' states.
func TestArrivedAt(t *testing.T) {
	p, must := openHere(t)
	const rounds = 3
	ports := make(map[uint16]bool)
	for range 2 * len(bpf.SynspyCpuState{}.Arrivals) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		must(err)
		defer l.Close()
		ports[uint16(l.Addr().(*net.TCPAddr).Port)] = true
	}
	holders, found := holdersHere(t, p)
	must(p.Start(found, func(uint64) bool { return true }))
	var sockets []uint64
	for i := range holders {
		if h := &holders[i]; h.PID == uint32(os.Getpid()) && ports[h.Listener.Port] {
			sockets = append(sockets, h.Listener.Socket)
		}
	}
	if len(sockets) != len(ports) {
		t.Fatalf("%d of %d listeners found", len(sockets), len(ports))
	}
	for range rounds {
		for port := range ports {
			conn, err := net.DialTCP("tcp4", nil,
				&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
			must(err)
			conn.Close()
		}
	}
	read := func(asked []uint64) map[uint64]listener.Arrivals {
		sums := make(map[uint64]listener.Arrivals)
		must(p.ArrivedAt(asked, sums))
		return sums
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var all, walked, looked uint64
		list, _, err := p.Arrivals()
		must(err)
		counted := make(map[uint64]listener.Arrivals)
		for _, a := range list {
			counted[a.Socket] = a
		}
		some, many := read(nil), read(sockets)
		for _, socket := range sockets {
			few := read([]uint64{socket})
			all, walked, looked = all+counted[socket].Syn, walked+many[socket].Syn, looked+few[socket].Syn
			if few[socket].Syn != some[socket].Syn { // ACKs may still be on their way
				t.Errorf("listener %d: %+v looked up, %+v on a walk", socket,
					few[socket], some[socket])
			}
		}
		if want := uint64(rounds * len(sockets)); all == want && walked == want &&
			looked == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d SYNs were sent; counted %d, walked %d, looked up %d",
				rounds*len(sockets), all, walked, looked)
		}
	}
}
