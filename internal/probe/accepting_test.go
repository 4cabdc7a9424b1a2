// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// TestAccepting: what entered the accept queues, how long these were at most, and what was accepted
// is the same wherever it is kept: so many listeners make each other leave the CPUs' states,
// and the places of the accept side.
func TestAccepting(t *testing.T) {
	for _, test := range []struct {
		name, backend string
		occupied      bool // other threads have all the notes of who is in accept()
	}{{"auto", Auto, false}, {"kprobes", Kprobe, false}, {"kprobes, no notes", Kprobe, true}} {
		t.Run(test.name, func(t *testing.T) {
			facts, err := Gather("")
			if err != nil {
				t.Fatal(err)
			}
			config := Config{Rate: 100, RingSize: 1 << 16, Accepts: true}
			p, err := Open(facts, test.backend, config, slog.New(slog.DiscardHandler))
			if errors.Is(err, ErrCannotTrace) && test.backend != Auto {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			for place := range uint32(acceptNotes) {
				note := uint64(0)
				if test.occupied {
					note = 1<<10 - 1
				}
				if err := p.collection.Maps["accept_notes"].Put(place, note); err != nil {
					t.Fatal(err)
				}
			}
			acceptFromMany(t, p)
		})
	}
}

func acceptFromMany(t *testing.T, p *Probe) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const rounds = 3
	listeners := make(map[uint16]net.Listener)
	for range 2 * len(bpf.SynspyCpuState{}.Arrivals) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		must(err)
		defer l.Close()
		listeners[uint16(l.Addr().(*net.TCPAddr).Port)] = l
	}
	holders, found := holdersHere(t, p)
	must(p.Start(found, func(uint64) bool { return true }))
	sockets := make(map[uint64]bool)
	for i := range holders {
		h := &holders[i]
		if h.PID == uint32(os.Getpid()) && listeners[h.Listener.Port] != nil {
			sockets[h.Listener.Socket] = true
		}
	}
	for range rounds {
		for port := range listeners {
			at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}
			conn, err := net.DialTCP("tcp4", nil, at)
			must(err)
			defer conn.Close()
		}
	}
	entered := func() (n uint64) {
		list, _, err := p.Arrivals()
		must(err)
		for _, a := range list {
			if sockets[a.Socket] {
				n += a.Entered
			}
		}
		return n
	}
	want := uint64(rounds * len(listeners))
	for deadline := time.Now().Add(10 * time.Second); entered() != want; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d connections entered", entered(), want)
		}
		time.Sleep(10 * time.Millisecond)
	}
	read := func(check func(uint64, Accepting)) {
		t.Helper()
		rows, err := p.Accepting()
		must(err)
		for socket := range sockets {
			check(socket, rows[socket])
		}
	}
	read(func(socket uint64, a Accepting) {
		if a.Arrivals != rounds || !a.Marked || a.AcceptMax != rounds {
			t.Errorf("listener %d: %+v, want a queue of %d connections", socket, a, rounds)
		}
	})
	read(func(socket uint64, a Accepting) {
		if a.Arrivals != rounds || a.Marked {
			t.Errorf("listener %d: %+v, want no marks since the last reading", socket, a)
		}
	})
	began := kernel.Monotonic()
	for _, l := range listeners {
		for range rounds {
			conn, err := l.Accept()
			must(err)
			conn.Close()
		}
	}
	accepted := func(socket uint64, a Accepting) {
		var waits uint64
		for _, n := range a.Waits {
			waits += n
		}
		right := a.Accepts == rounds && waits == rounds && a.Last >= began && a.Gap > 0 &&
			a.Gap < kernel.Monotonic()-began && a.Waited > 0
		if a.Proof == event.ProofReturn && !right {
			t.Errorf("listener %d: %+v, want %d accepts", socket, a, rounds)
		}
	}
	read(accepted)
	for socket := range sockets {
		must(p.Depart(socket))
		e, err := p.Entered(socket, Arrivals{})
		must(err)
		if e.Accepts != nil && *e.Accepts != rounds {
			t.Errorf("listener %d departed with %d accepts, want %d", socket, *e.Accepts, rounds)
		}
	}
	if p.plan.hooks(acceptFunction) {
		read(accepted)
	}
	var place uint32
	var owner uint64
	for rows := p.collection.Maps["accept_owners"].Iterate(); rows.Next(&place, &owner); {
		if sockets[owner] {
			t.Errorf("listener %d departed and has place %d", owner, place)
		}
	}
}

// TestAcceptors: a connection names the listener that the kernel would have
// chosen among those that its process holds, or none.
func TestAcceptors(t *testing.T) {
	const pid, start, netns, port = 7, 70, 1, 80
	listener := func(socket uint64, addr string) Listener {
		return Listener{Socket: socket, NetNS: netns, Port: port, Addr: netip.MustParseAddr(addr)}
	}
	for _, test := range []struct {
		name  string
		holds []Listener
		addr  string
		want  []uint64
	}{
		{"its address", []Listener{listener(1, "10.0.0.1"), listener(2, "10.0.0.2")}, "10.0.0.2", []uint64{2}},
		{"any address", []Listener{listener(1, "10.0.0.1"), listener(2, "0.0.0.0")}, "10.0.0.2", []uint64{2}},
		{"address before any", []Listener{listener(1, "0.0.0.0"), listener(2, "10.0.0.2")}, "10.0.0.2", []uint64{2}},
		{"IPv4 at an IPv6 listener", []Listener{listener(1, "::")}, "10.0.0.2", []uint64{1}},
		{"IPv4 before IPv6", []Listener{listener(1, "::"), listener(2, "0.0.0.0")}, "10.0.0.2", []uint64{2}},
		{"IPv6 at an IPv4 listener", []Listener{listener(1, "0.0.0.0")}, "fd00::1", nil},
		{"another address", []Listener{listener(1, "10.0.0.1")}, "10.0.0.2", nil},
		{"SO_REUSEPORT", []Listener{listener(1, "0.0.0.0"), listener(2, "0.0.0.0"), listener(3, "0.0.0.0")}, "10.0.0.2", nil},
		{"one socket twice", []Listener{listener(1, "0.0.0.0"), listener(1, "0.0.0.0")}, "10.0.0.2", []uint64{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []uint64
			a := acceptors{accepted: func(socket uint64, by uint32, since uint64) {
				if by != pid || since != start {
					t.Errorf("process %d of %d accepted", by, since)
				}
				got = append(got, socket)
			}}
			addr := netip.MustParseAddr(test.addr)
			a.come(pid, start-1) // another process of that number
			a.has(netns, port, addr)
			a.come(pid, start)
			a.has(netns, port, addr) // it comes before or after its listener
			for _, l := range test.holds {
				a.holds(l.Socket, l.NetNS, l.Port, l.Addr)
			}
			a.come(pid+1, start)
			a.has(netns, port, addr)
			a.come(0, 0)
			if !slices.Equal(got, test.want) {
				t.Errorf("accepted from %v, want %v", got, test.want)
			}
		})
	}
}
