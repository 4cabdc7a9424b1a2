// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// flood writes n prebuilt SYNs, each of a client of its own, into a full accept
// queue: every one is dropped.
func flood(t testing.TB, w *world.World, n int) {
	t.Helper()
	must(t, w.Inject(w.SYNFrames(server4, n)))
}

// TestRate floods: records may be held back or lost, counts may not.
func TestRate(t *testing.T) {
	const drops = 20_000
	for _, tt := range []struct {
		name       string
		args       []string
		suppressed bool
		lost       bool
	}{
		{name: "default rate", suppressed: true},
		{name: "no limit", args: []string{"--rate", "0", "--ring-size", "16777216"}},
		{name: "tiny ring", args: []string{"--rate", "0", "--ring-size", "4096"},
			lost: true},
		{name: "rate and tiny ring", args: []string{"--rate", "1000", "--ring-size",
			"4096"}, suppressed: true, lost: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			server := startServer(t, w, "flooded",
				server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
			fill(t, w, server4, 3)
			before := counters(t, w)
			tr := start(t, append([]string{"--netns", w.Path()}, tt.args...)...)
			flood(t, w, drops)
			a := tr.stop()

			for c, n := range counters(t, w) {
				a.wantRow(w.NetNS(), c.String(), int(n-before[c]), 0)
			}
			overflows := a.wantRow(w.NetNS(), "ListenOverflows", drops, 0)
			suppressed, lost := a.heldBack("suppressed", w.NetNS()),
				a.heldBack("lost", w.NetNS())
			if sum := len(a.drops) + suppressed + lost + overflows.Unattributed; sum != drops {
				t.Errorf("%d records + %d suppressed + %d lost + %d unattributed = %d, want %d", len(a.drops), suppressed,
					lost, overflows.Unattributed, sum, drops)
			}
			if (suppressed > 0) != tt.suppressed || (lost > 0) != tt.lost ||
				len(a.drops) == 0 {
				t.Errorf("%d records, %d suppressed, %d lost", len(a.drops),
					suppressed, lost)
			}
			for _, r := range a.held {
				if r.Cause != "accept_queue_full" || r.Listener == nil ||
					r.Listener.Port != port {
					t.Errorf("held back: %+v", r)
				}
			}
			// Every SYN is a handshake of its own, and a first try; where the
			// table of handshakes had to throw one out, that is not said.
			if a.summary.Handshakes != drops-overflows.Unattributed {
				t.Errorf("%d handshakes, want %d", a.summary.Handshakes, drops)
			}
			unsaid := 0
			for _, r := range a.drops {
				if len(r.Processes) != 1 || r.Processes[0].PID != server.PID {
					t.Fatalf("processes %+v", r.Processes)
				}
				switch r.Attempt {
				case 0:
					unsaid++
				case 1:
				default:
					t.Fatalf("attempt %d of %v, which tried once", r.Attempt,
						r.Client)
				}
			}
			if unsaid > len(a.drops)/10 {
				t.Errorf("no attempt in %d of %d records", unsaid, len(a.drops))
			}
			if len(a.summary.Seen) != 1 || a.summary.Seen[0].Syn != drops {
				t.Errorf("seen %+v, want %d SYNs", a.summary.Seen, drops)
			}
			t.Logf("%d records, %d suppressed, %d lost, %d unattributed; %d without attempt", len(a.drops), suppressed, lost,
				overflows.Unattributed, unsaid)
		})
	}
}

// TestRateIsPerSecond checks that the limit is --rate in each second and for
// each listener, and that what it holds back is told once a second.
func TestRateIsPerSecond(t *testing.T) {
	const rate = 10
	w := newWorld(t)
	startServer(t, w, "limited", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	tr := start(t, "--netns", w.Path(), "--rate", "10")
	flood(t, w, 50)
	over := time.Now().Add(time.Second)
	tr.await("the first suppressed record", func(records []record) bool {
		return records[len(records)-1].Type == "suppressed"
	})
	time.Sleep(time.Until(over)) // the next window
	flood(t, w, 50)
	a := tr.stop()
	if len(a.drops) != 2*rate || a.heldBack("suppressed", w.NetNS()) != 100-2*rate {
		t.Errorf("%d records and %d suppressed of 100 drops in two seconds at rate %d",
			len(a.drops),
			a.heldBack("suppressed", w.NetNS()), rate)
	}
	if r := a.held[0]; r.Count != 50-rate {
		t.Errorf("the first second held back %d, want %d", r.Count, 50-rate)
	}
}
