// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// sampledFrom leaves of a listener's samples those of a collector that looks closely from an
// offset on, in ms, and every half second before: what a thread ran between two is told by the
// later one.
func sampledFrom(l evidence.Listener, from uint32) evidence.Listener {
	const calmMs = 500
	for i, t := range l.Threads {
		var kept []evidence.Sample
		var ran, delayed float64
		known, closely := false, false
		for _, smp := range t.Samples {
			if smp.RunMs != nil {
				ran, delayed, known = ran+*smp.RunMs,
					delayed+evidence.Value(smp.DelayMs), true
			}
			if smp.OffsetMs < from && smp.OffsetMs/stepMs%(calmMs/stepMs) != 0 {
				continue
			}
			if smp.Calm = !closely; known {
				smp.RunMs, smp.DelayMs = ptr(ran), ptr(delayed)
			}
			kept = append(kept, smp)
			ran, delayed, closely = 0, 0, smp.OffsetMs >= from
		}
		l.Threads[i].Samples = kept
	}
	return l
}

// TestLookedAtFrom: the finding is the same where threads are looked at closely only from the first
// sign of trouble on.
func TestLookedAtFrom(t *testing.T) {
	window := func(sample func(int) evidence.Sample) evidence.Listener {
		return thread(blockedWindow(16), true, sample)
	}
	for _, tt := range []struct {
		name string
		l    func() evidence.Listener
		want event.FindingID
	}{
		{"asleep", func() evidence.Listener {
			return window(between(2000, 7000, inSleep,
				inPoll))
		}, event.FindingAcceptLoopBlocked},
		{"computing", func() evidence.Listener {
			return window(between(2000, 7000,
				computing, inPoll))
		}, event.FindingAcceptLoopBusy},
		{"running, without a profile",
			func() evidence.Listener {
				return window(between(2000, 7000, running,
					inPoll))
			}, event.FindingAcceptLoopBusy},
		{"starving", func() evidence.Listener {
			return window(between(2000, 7000, starving,
				inPoll))
		}, event.FindingCPUStarved},
		{"stopped", func() evidence.Listener {
			return window(between(2000, 7000, stopped,
				inPoll))
		}, event.FindingProcessStopped},
		{"one of two loops", func() evidence.Listener {
			return thread(thread(slowWindow(), false, always(inRead)), false,
				always(inSleepBetween))
		}, event.FindingAcceptLoopBlocked},
		{"Go's threads", func() evidence.Listener {
			return thread(thread(thread(slowWindow(), true, always(waitingAside)),
				false, byTurns(0)), false, byTurns(1))
		}, event.FindingAcceptLoopBusy},
	} {
		for _, from := range []uint32{0, 2000, 2300} {
			e := evidenceOf(sampledFrom(tt.l(), from))
			e.Closely = []evidence.Span{{FromMs: from, ToMs: 10_000}}
			d := Diagnose(e)
			if len(d.Findings) == 0 || d.Findings[0].ID != tt.want ||
				d.Findings[0].Severity != event.SeverityCause {
				t.Errorf("%s, looked at closely from %d ms on: %s, want %s",
					tt.name, from, d.Verdict, tt.want)
			}
		}
	}
}

// TestNotLookedAt: of the time before threads were looked at closely nothing is concluded, and how
// much that was is said.
func TestNotLookedAt(t *testing.T) {
	const said = "before its threads were looked at closely"
	tell := func(e *evidence.Evidence) (id event.FindingID, before string) {
		d := Diagnose(e)
		for _, ev := range d.Findings[0].Evidence {
			if strings.Contains(ev.What, said) {
				before = fmt.Sprint(ev.Value)
			}
		}
		return d.Findings[0].ID, before
	}
	// It ran and starved some time between two looks, one of which fell into the time in which
	// the queue was full.
	for _, did := range []evidence.Sample{running, starving} {
		e := evidenceOf(sampledFrom(thread(blockedWindow(16), true, between(1000, 7000,
			did, inPoll)), 7000))
		e.Closely = []evidence.Span{{FromMs: 7000, ToMs: 10_000}}
		if id, before := tell(e); id == event.FindingAcceptLoopBusy ||
			id == event.FindingCPUStarved || before == "" {
			t.Errorf("it did something, at some time: %s, with %q ms before", id,
				before)
		}
	}
	for _, c := range []struct {
		closely []evidence.Span
		none    bool
	}{{nil, true}, {[]evidence.Span{{FromMs: 0, ToMs: 10_000}},
		true}, {[]evidence.Span{{FromMs: 4000, ToMs: 10_000}}, false}} {
		e := evidenceOf(thread(blockedWindow(16), true, between(2000, 7000, inSleep,
			inPoll)))
		e.Closely = c.closely
		if _, before := tell(e); (before == "") != c.none {
			t.Errorf("looked at closely in %v: it is said that there were %q ms before",
				c.closely, before)
		}
	}
}

// TestCalmExcludes: that a thread did not run for long says that it did not accept; that it ran
// once in a long time says little, and nothing where more is known.
func TestCalmExcludes(t *testing.T) {
	l := evidence.Listener{StepMs: 50}
	for i := range 40 {
		l.Timeline = append(l.Timeline, event.TimelinePoint{OffsetMs: uint32(i * 50),
			Accepts: ptr(uint64(1))})
	}
	samples := func(calmRan, closeRan float64) (t evidence.Thread) {
		for _, at := range []uint32{0, 500, 1000} {
			t.Samples = append(t.Samples, evidence.Sample{OffsetMs: at, Calm: true,
				RunMs: ptr(calmRan)})
		}
		for at := uint32(1500); at < 2000 && closeRan >= 0; at += 50 {
			t.Samples = append(t.Samples, evidence.Sample{OffsetMs: at,
				RunMs: ptr(closeRan)})
		}
		return t
	}
	for _, c := range []struct {
		name     string
		t        evidence.Thread
		from, to float64
	}{
		{"the acceptor", samples(5, 1), 1, 1},
		{"one that runs now and then", samples(5, 0), 0, 0},
		{"one that rested until then", samples(0, 1), 0.5, 0.79},
		{"one that is only known to have run", samples(5, -1), 1, 1},
		{"one that rested, as far as is known", samples(0, -1), 0, 0},
	} {
		if got := l.RanWithAccepts(c.t); got < c.from || got > c.to {
			t.Errorf("%s: ran in %v of the steps with accepts, want %v to %v", c.name,
				got, c.from, c.to)
		}
	}
}
