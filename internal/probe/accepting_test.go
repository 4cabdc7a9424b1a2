// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/load"
)

// TestAccepting: what entered the accept queues, how long these were at most, and what was accepted
// is the same wherever it is kept: so many listeners make each other leave the CPUs' states,
// and the places of the accept side.
func TestAccepting(t *testing.T) {
	for _, test := range []struct {
		name, backend string
		occupied      bool // other threads have all the notes of who is in accept()
	}{{"auto", facts.Auto, false}, {"kprobes", facts.Kprobe, false}, {"kprobes, no notes",
		facts.Kprobe, true}} {
		t.Run(test.name, func(t *testing.T) {
			here, err := facts.Gather("")
			if err != nil {
				t.Fatal(err)
			}
			config := load.Config{Rate: 100, RingSize: 1 << 16, Accepts: true}
			p, err := Open(here, test.backend, config, slog.New(slog.DiscardHandler))
			if errors.Is(err, facts.ErrCannotTrace) && test.backend != facts.Auto {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			for place := range uint32(load.AcceptNotes) {
				note := uint64(0)
				if test.occupied {
					note = 1<<10 - 1
				}
				if err := p.Collection.Maps["accept_notes"].Put(place,
					note); err != nil {
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
	read := func(check func(uint64, listener.Accepting)) {
		t.Helper()
		rows, err := p.Accepting()
		must(err)
		for socket := range sockets {
			check(socket, rows[socket])
		}
	}
	read(func(socket uint64, a listener.Accepting) {
		if a.Arrivals != rounds || !a.Marked || a.AcceptMax != rounds {
			t.Errorf("listener %d: %+v, want a queue of %d connections", socket, a,
				rounds)
		}
	})
	read(func(socket uint64, a listener.Accepting) {
		if a.Arrivals != rounds || a.Marked {
			t.Errorf("listener %d: %+v, want no marks since the last reading", socket,
				a)
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
	accepted := func(socket uint64, a listener.Accepting) {
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
		e, err := p.Entered(socket, listener.Arrivals{})
		must(err)
		if e.Accepts != nil && *e.Accepts != rounds {
			t.Errorf("listener %d departed with %d accepts, want %d", socket,
				*e.Accepts, rounds)
		}
	}
	if p.plan.Attaches(facts.AcceptFunction) {
		read(accepted)
	}
	var place uint32
	var owner uint64
	for rows := p.Collection.Maps["accept_owners"].Iterate(); rows.Next(&place, &owner); {
		if sockets[owner] {
			t.Errorf("listener %d departed and has place %d", owner, place)
		}
	}
}
