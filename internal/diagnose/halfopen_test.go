// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// withCookies adds what the namespace's counters say of the cookies that were sent.
func withCookies(e *evidence.Evidence, back uint64) *evidence.Evidence {
	for name, n := range map[event.Counter]uint64{event.CounterSyncookiesSent: evidence.Value(e.Listeners[0].Cookies), event.CounterSyncookiesRecv: back} {
		e.Ledger = append(e.Ledger, event.LedgerRow{NetNS: e.Listeners[0].ID.NetNS,
			Counter: name.String(), Kernel: n, Synspy: n})
	}
	return e
}

// TestSynQueueSays: what filled the SYN queue, whose it is, and what ends it. One setting has one
// value in a report.
func TestSynQueueSays(t *testing.T) {
	overflowed := func(stage event.Stage) evidence.Listener {
		return died1(cookies(listener(4, rate(2, 10), rate(2, 100)), 1, 96),
			event.CauseAcceptQueueFull, stage, event.ActionDropped, 73)
	}
	for _, tt := range []struct {
		name         string
		e            *evidence.Evidence
		says, owner  string
		fixed, never []string
	}{
		{"last ACKs that found the accept queue full, and every cookie came back",
			withCookies(evidenceOf(overflowed(event.StageAck)), 96),
			"more handshakes were begun at once than the SYN queue holds",
			"application", nil, []string{"spoofed", "set the backlog"}},
		{"SYNs that found it full, and every cookie came back",
			withCookies(evidenceOf(overflowed(event.StageSyn)), 96),
			"the SYN queue filled behind the full accept queue", "application", nil,
			[]string{"spoofed", "set the backlog"}},
		{"cookies that did not come back",
			withCookies(evidenceOf(overflowed(event.StageSyn)), 3),
			"the SYN queue filled behind the full accept queue", "network",
			[]string{"spoofed"}, []string{"set the backlog"}},
		{"a flood while cookies are off",
			evidenceOf(somaxconn(died1(cookies(listener(64, rate(2, 400), rate(2, 400)),
				0, 0),
				event.CauseSynQueueFull, event.StageSyn, event.ActionDropped,
				700), 4096, nil)),
			"the SYN queue was full of handshakes that clients did not finish",
			"network", []string{"turn SYN cookies on"},
			[]string{"leave net.ipv4.tcp_syncookies", "set the backlog"}},
		{"many at once who are there",
			withCookies(evidenceOf(somaxconn(cookies(listener(64, rate(2, 400),
				rate(2, 400)), 1, 200), 4096, nil)), 200),
			"more handshakes were begun at once than the SYN queue holds, and clients finished them", "application", []string{"set the backlog"}, []string{"spoofed"}},
		{"a cookie for everybody",
			withCookies(evidenceOf(somaxconn(cookies(listener(64, rate(2, 400),
				rate(2, 400)), 2, 200), 4096, nil)), 200),
			"net.ipv4.tcp_syncookies is 2: a SYN cookie answers every SYN, however much room the SYN queue has", "node",
			[]string{"tcp_syncookies to 1"}, []string{"spoofed", "set the backlog",
				"leave net.ipv4.tcp_syncookies"}},
		{"the same, and the accept queue was full",
			withCookies(evidenceOf(func() evidence.Listener {
				l := overflowed(event.StageAck)
				l.Sysctls.Syncookies = ptr(uint32(2))
				return l
			}()), 96),
			"net.ipv4.tcp_syncookies is 2: a SYN cookie answers every SYN, however much room the SYN queue has", "node",
			nil, []string{"spoofed", "set the backlog"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := slices.IndexFunc(Diagnose(tt.e).Findings,
				func(f event.Finding) bool {
					return f.ID == event.FindingSynQueuePressure
				})
			if i < 0 {
				t.Fatal("the SYN queue is not told of")
			}
			f := Diagnose(tt.e).Findings[i]
			if f.Title != tt.says || f.Owner != tt.owner {
				t.Errorf("%q, for %s", f.Title, f.Owner)
			}
			all := strings.Join(append(f.Fix, f.Settles), "\n")
			for _, s := range tt.fixed {
				if !strings.Contains(all, s) {
					t.Errorf("no %q in %s", s, all)
				}
			}
			for _, s := range tt.never {
				if strings.Contains(all, s) {
					t.Errorf("%q in %s", s, all)
				}
			}
		})
	}
}

// TestNobodyAcceptsBacklog: a queue is not told to be too small where nobody accepts, and what was
// told is not said to be untold.
func TestNobodyAcceptsBacklog(t *testing.T) {
	l := listener(8, rate(6, 60), rate(6, 0))
	l.Timeline[0].Accepts = nil // the listener came later
	l.Missing = []evidence.Gap{{Need: evidence.NeedAccepts,
		Why: "accepts were not counted from the start"}}
	d := Diagnose(evidenceOf(l))
	if d.Findings[0].ID != event.FindingNoAcceptor || len(d.Findings) != 1 {
		t.Errorf("%+v", d.Findings)
	}
	for _, c := range d.Cannot {
		if slices.Contains(c.Findings, event.FindingNoAcceptor) ||
			!slices.Contains(c.Findings, event.FindingBacklogTooSmall) {
			t.Errorf("not told: %v", c.Findings)
		}
	}
	if len(d.Cannot) != 1 {
		t.Errorf("%+v", d.Cannot)
	}
}

// TestCookiesStandIn: where cookies answered and nothing was dropped, no handshake is said to be in
// trouble.
func TestCookiesStandIn(t *testing.T) {
	e := evidenceOf(somaxconn(cookies(listener(64, rate(2, 400), rate(2, 400)), 1, 200), 4096,
		nil))
	if d := Diagnose(e); d.Findings[0].ID != event.FindingSynQueuePressure ||
		!strings.HasPrefix(d.Verdict,
			"No handshake to 10.0.0.1:443 was seen to be dropped, but the SYN queue was full") {
		t.Errorf("%s: %s", d.Findings[0].ID, d.Verdict)
	}
}
