// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/diagnose/whatif"
	"github.com/synspy/synspy/internal/event"
)

// TestWhatIfHolds plays windows again with what the replay of their own timeline advised: the
// advice is made from what a timeline shows, not from what the window was made of.
func TestWhatIfHolds(t *testing.T) {
	advised := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		pace := 500 + r.Float64()*2000
		arrivals, capacity := rate(10, 20+r.Float64()*pace*0.6), rate(10, pace)
		for range 1 + r.IntN(4) {
			at := r.IntN(9000)
			if r.IntN(2) == 0 {
				during(arrivals, at, at+100+r.IntN(200), plus(r.Uint64N(300)))
			} else {
				during(capacity, at, at+r.IntN(600), none)
			}
		}
		limit := 8 + r.Uint32N(120)
		l := listener(limit, arrivals, capacity)
		w := whatif.WhatIf(&evidence.Evidence{}, &l)
		if l.Dropped(event.CauseAcceptQueueFull) == 0 {
			if w != nil {
				t.Fatalf("seed %d: nothing dropped, and advice: %s", seed, w.Says)
			}
			continue
		}
		if len(w.Rows) == 0 || !w.Rows[0].Present || w.Rows[0].Limit != limit {
			t.Fatalf("seed %d: the first row is not the present: %+v", seed, w.Rows)
		}
		need, ok := whatif.Helps(w)
		if !ok {
			continue
		}
		advised++
		wantAdvised(t, seed, limit, need, w, listener(need, arrivals, capacity))
	}
	if advised < 50 {
		t.Errorf("only %d windows had an advice", advised)
	}
}

// wantAdvised plays the advice: at the limit that was advised next to nothing is dropped.
func wantAdvised(t *testing.T, seed uint64, limit, need uint32, w *event.WhatIf,
	again evidence.Listener) {
	t.Helper()
	if n := again.Dropped(event.CauseAcceptQueueFull); n > w.Observed/50 {
		t.Errorf("seed %d: limit %d was advised instead of %d, which dropped %d; it drops %d", seed, need, limit, w.Observed, n)
	}
}

func TestWhatIfSays(t *testing.T) {
	for _, tt := range []struct {
		name  string
		l     evidence.Listener
		limit uint32 // zero: none helps
		says  string
	}{
		{"a burst", burstWindow(128), 511,
			"a limit of 511 instead of 128 would have dropped 0 of 800 handshakes"},
		{"a tiny backlog", tinyWindow(2), 16, "a limit of 16 instead of 2"},
		{"a standstill", blockedWindow(16), 0,
			"a limit of 511 would have dropped 0 of 1,000 handshakes and let some wait for up to 5 s, unanswered: the accept loop stands still for 5 s, and no limit ends that"},
		{"overload", listener(128, rate(10, 300), rate(10, 200)), 0,
			"a limit of 1024 would have dropped 0 of 3,000 handshakes and let some wait for up to 3.4 s, unanswered: connections arrive faster than they are accepted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := whatif.WhatIf(&evidence.Evidence{}, &tt.l)
			if w == nil || !strings.HasPrefix(w.Says, tt.says) ||
				evidence.Value(w.Limit) != tt.limit || len(w.Assumes) == 0 {
				t.Errorf("got %+v", w)
			}
		})
	}
	for name, change := range map[string]func(*evidence.Listener){
		"nothing dropped":      func(l *evidence.Listener) { l.Counts = nil },
		"no timeline":          func(l *evidence.Listener) { l.Timeline = nil },
		"accepts not counted":  func(l *evidence.Listener) { l.Timeline[3].Accepts = nil },
		"arrivals not counted": func(l *evidence.Listener) { l.Timeline[3].Arrivals = nil },
		"no limit known": func(l *evidence.Listener) {
			l.ID.AcceptQueue = nil
			for i := range l.Timeline {
				l.Timeline[i].AcceptQueue = nil
			}
		},
	} {
		l := burstWindow(128)
		change(&l)
		if w := whatif.WhatIf(&evidence.Evidence{}, &l); w != nil {
			t.Errorf("%s: %+v", name, w)
		}
	}
}

// TestRetriesUnknown: without knowing which SYNs came again, each stands for itself, and it is
// said.
func TestRetriesUnknown(t *testing.T) {
	l := burstWindow(128)
	l.RetriesCounted = false
	for i := range l.Timeline {
		l.Timeline[i].Retries = nil
	}
	if w := whatif.WhatIf(&evidence.Evidence{}, &l); !strings.Contains(strings.Join(w.Assumes,
		"; "), "which came again is not known") {
		t.Errorf("assumes %q", w.Assumes)
	}
}

// retrying plays clients that try again against a queue. Those of a window's arrivals are the first
// SYNs.
func retrying(limit uint32, first, capacity []uint64, after []uint32) evidence.Listener {
	m := whatif.QueueModel{StepMs: stepMs, Arrivals: first, Retries: after}
	due := make([][]whatif.Attempts, len(first))
	l := evidence.Listener{ID: event.Listener{AcceptQueue: &event.Queue{Limit: limit}},
		StepMs: stepMs, RetriesCounted: true, Accepts: ptr(uint64(0))}
	var length, drops uint64
	for i, n := range first {
		due[i] = append(due[i], whatif.Attempts{Begun: i, Count: n})
		p := event.TimelinePoint{OffsetMs: uint32(i * stepMs), Arrivals: ptr(uint64(0)),
			Retries: ptr(uint64(0)), Accepts: ptr(uint64(0)),
			Drops: ptr(uint64(0)), AcceptQueue: &event.Queue{Limit: limit}}
		for _, a := range due[i] {
			in := min(a.Count, uint64(limit)+1-min(length, uint64(limit)+1))
			length += in
			*p.Arrivals += a.Count
			*p.Drops += a.Count - in
			if a.Nth > 0 {
				*p.Retries += a.Count
			}
			if next, ok := m.Again(a); ok && a.Count > in {
				due[next] = append(due[next], whatif.Attempts{Begun: a.Begun,
					Nth: a.Nth + 1, Count: a.Count - in})
			}
		}
		p.AcceptQueue.Len = uint32(length)
		*p.Accepts = min(length, capacity[i])
		length -= *p.Accepts
		*l.Accepts += *p.Accepts
		drops += *p.Drops
		l.Timeline = append(l.Timeline, p)
	}
	l.Counts = []event.Count{{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
		Action: event.ActionDropped, Count: drops}}
	return l
}

// TestRetriesGotThrough: 128 clients come at once, half are dropped, and get through a second
// later. They are 128 and no more, and what would have held them is advised.
func TestRetriesGotThrough(t *testing.T) {
	first := rate(5, 0)
	first[20] = 128
	l := retrying(63, first, rate(5, 2600), whatif.RetriesLinear)
	w := whatif.WhatIf(&evidence.Evidence{}, &l)
	if w.Observed != 64 || w.Arrivals != 128 || evidence.Value(w.Limit) != 128 ||
		!strings.Contains(strings.Join(w.Assumes, "; "), "comes again 1, 2, 3") {
		t.Errorf("%d dropped, %d handshakes, limit %d: %s; assumes %q", w.Observed,
			w.Arrivals, evidence.Value(w.Limit), w.Says, w.Assumes)
	}
	// Where only those that are dropped again are told, what got through counts as new, and it
	// is said.
	through := l
	through.RetriesCounted = false
	through.Timeline = append([]event.TimelinePoint{}, l.Timeline...)
	for i, p := range through.Timeline {
		through.Timeline[i].Retries = ptr(min(*p.Retries, *p.Drops))
	}
	if w := whatif.WhatIf(&evidence.Evidence{}, &through); w.Arrivals <= 128 ||
		!strings.Contains(strings.Join(w.Assumes, "; "), "may count as new") {
		t.Errorf("untold: %d handshakes; assumes %q", w.Arrivals, w.Assumes)
	}
}

// TestGuessedCapacity: where the loop was never seen at its limit, nobody says that it cannot be
// quicker.
func TestGuessedCapacity(t *testing.T) {
	first, capacity := rate(5, 0), rate(5, 0)
	first[20], capacity[20], capacity[21] = 120, 5, 4
	l := retrying(8, first, capacity, nil)
	if w := whatif.WhatIf(&evidence.Evidence{}, &l); w.Limit != nil || !strings.Contains(w.Says,
		"whether the loop can be quicker was not") ||
		!strings.Contains(strings.Join(w.Assumes, "; "),
			"5 connections could be accepted in 50 ms, as many as were at most") {
		t.Errorf("%s; assumes %q", w.Says, w.Assumes)
	}
	l.PeakAccepts = 18 // between two readings
	if w := whatif.WhatIf(&evidence.Evidence{}, &l); evidence.Value(w.Limit) != 128 {
		t.Errorf("%s", w.Says)
	}
}

// TestRetriesHold plays windows of clients that try again with what was advised for them, as
// TestWhatIfHolds does.
func TestRetriesHold(t *testing.T) {
	advised := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 11))
		first, capacity := rate(15, 10+r.Float64()*400), rate(15, 500+r.Float64()*2000)
		for range 1 + r.IntN(4) {
			at := r.IntN(9000)
			if r.IntN(2) == 0 {
				during(first, at, at+50+r.IntN(200), plus(r.Uint64N(300)))
			} else {
				during(capacity, at, at+r.IntN(600), none)
			}
		}
		after := whatif.RetriesLinear
		if r.IntN(2) == 0 {
			after = whatif.RetriesExponential
		}
		limit := 8 + r.Uint32N(120)
		l := retrying(limit, first, capacity, after)
		if l.Dropped(event.CauseAcceptQueueFull) == 0 {
			continue
		}
		var clients uint64
		for _, n := range first {
			clients += n
		}
		w := whatif.WhatIf(&evidence.Evidence{}, &l)
		if w.Arrivals != clients {
			t.Errorf("seed %d: %d handshakes for %d clients", seed, w.Arrivals, clients)
		}
		need, ok := whatif.Helps(w)
		if !ok {
			continue
		}
		advised++
		wantAdvised(t, seed, limit, need, w, retrying(need, first, capacity, after))
	}
	if advised < 50 {
		t.Errorf("only %d windows had an advice", advised)
	}
}

// TestBegun: what came again is taken off the step in which its SYN came, or, told later than that,
// off those before.
func TestBegun(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		arrivals, retries, begun []uint64
	}{
		{"none", []uint64{3, 0, 2}, []uint64{0, 0, 0}, []uint64{3, 0, 2}},
		{"in its step", []uint64{3, 4}, []uint64{0, 3}, []uint64{3, 1}},
		{"told a step later", []uint64{3, 4, 0}, []uint64{0, 0, 3}, []uint64{3, 1, 0}},
		{"over two steps", []uint64{3, 4, 1}, []uint64{0, 0, 6}, []uint64{2, 0, 0}},
		{"more than came", []uint64{3}, []uint64{4}, []uint64{0}},
	} {
		var points []event.TimelinePoint
		for i := range tt.arrivals {
			points = append(points, event.TimelinePoint{Arrivals: &tt.arrivals[i],
				Retries: &tt.retries[i]})
		}
		if got := whatif.Begun(points); !slices.Equal(got, tt.begun) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.begun)
		}
	}
}

// TestStalls: steps in which nobody could look at the queue do not end a standstill, and make none.
func TestStalls(t *testing.T) {
	const unread = -1
	unknown := ^uint64(0)
	for _, tt := range []struct {
		name    string
		queue   []int // its length, or unread
		accepts []uint64
		want    []whatif.Stall
	}{
		{"read all the time", []int{2, 3, 4}, []uint64{0, 0, 0},
			[]whatif.Stall{{From: 0, To: 3}}},
		{"a late reading", []int{2, unread, unread, 4}, []uint64{0, 0, 0, 0},
			[]whatif.Stall{{From: 0, To: 4}}},
		{"accepted by the late reading", []int{2, unread, unread, 4}, []uint64{0, 0, 0, 1},
			[]whatif.Stall{{From: 0, To: 1}}},
		{"accepted meanwhile", []int{2, unread, unread, 4}, []uint64{0, 1, 0, 0},
			[]whatif.Stall{{From: 0, To: 1}, {From: 3, To: 4}}},
		{"empty after it", []int{2, unread, 0, 4}, []uint64{0, 0, 0, 0},
			[]whatif.Stall{{From: 0, To: 1}, {From: 3, To: 4}}},
		{"none before it", []int{0, unread, 4}, []uint64{0, 0, 0},
			[]whatif.Stall{{From: 2, To: 3}}},
		{"the last reading", []int{2, 2, unread}, []uint64{0, 0, 0},
			[]whatif.Stall{{From: 0, To: 2}}},
		{"accepts were not counted", []int{2, unread, 2}, []uint64{0, unknown, 0},
			[]whatif.Stall{{From: 0, To: 1}, {From: 2, To: 3}}},
	} {
		var l evidence.Listener
		for i, n := range tt.queue {
			var p event.TimelinePoint
			if n != unread {
				p.AcceptQueue = &event.Queue{Len: uint32(n), Limit: 1}
			}
			if tt.accepts[i] != unknown {
				p.Accepts = &tt.accepts[i]
			}
			l.Timeline = append(l.Timeline, p)
		}
		if got := whatif.Stalls(&l); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestLateReading: a loop that sleeps is found so as well where the machine was too busy to look
// all the time.
func TestLateReading(t *testing.T) {
	l := thread(blockedWindow(16), true, between(2000, 7000, inSleep, inPoll))
	whole := rules.NewSubject(evidenceOf(l), &l)
	for i := range l.Timeline {
		if ms := i * stepMs; ms >= 2500 && ms < 6500 && i%7 < 5 {
			l.Timeline[i].AcceptQueue, l.Timeline[i].Drops = nil, nil
		}
	}
	late := rules.NewSubject(evidenceOf(l), &l)
	if late.StallMs != whole.StallMs || late.PressedMs != whole.PressedMs ||
		late.Busy() != whole.Busy() {
		t.Errorf("stood still for %v ms, %v under pressure, busy %v; read all the time: %v, %v, %v",
			late.StallMs, late.PressedMs, late.Busy(), whole.StallMs, whole.PressedMs, whole.Busy())
	}
}

func TestTimeline(t *testing.T) {
	l := throttledWindow(2000, 7000)
	if got := timeline(&l); got.StepMs != stepMs || len(got.Points) != 200 ||
		got.Points[39].Throttled || !got.Points[40].Throttled || got.Points[140].Throttled {
		t.Errorf("%d points of %d ms, throttled %v %v %v", len(got.Points), got.StepMs,
			got.Points[39].Throttled, got.Points[40].Throttled, got.Points[140].Throttled)
	}
	l = listener(16, rate(150, 100), during(rate(150, 2000), 2000, 7000, none))
	got := timeline(&l)
	var drops uint64
	longest := uint32(0)
	for _, p := range got.Points {
		drops += *p.Drops
		longest = max(longest, p.AcceptQueue.Len)
	}
	if len(got.Points) > event.MaxTimelinePoints || got.StepMs != 3*stepMs ||
		drops != l.Dropped(event.CauseAcceptQueueFull) || longest != 17 {
		t.Errorf("%d points of %d ms with %d drops, longest %d", len(got.Points),
			got.StepMs, drops, longest)
	}
}

// TestWhatIfMisses: packets that the replay knows nothing of make its advice worthless.
func TestWhatIfMisses(t *testing.T) {
	l := burstWindow(128)
	if w := whatif.WhatIf(&evidence.Evidence{}, &l); w.Limit == nil {
		t.Fatalf("no limit is advised: %+v", w)
	}
	l = died1(burstWindow(128), event.CauseAcceptQueueFull, event.StageAck, event.ActionDropped,
		5000)
	if w := whatif.WhatIf(&evidence.Evidence{}, &l); w.Limit != nil || !strings.Contains(w.Says,
		"does not reproduce") {
		t.Errorf("%+v", w)
	}
	for _, tt := range []struct {
		replayed, observed uint64
		want               bool
	}{{53, 166, true}, {400, 166, true}, {90, 166, false}, {3, 12, false}, {0, 5, false}} {
		if whatif.Misses(tt.replayed, tt.observed) != tt.want {
			t.Errorf("%+v", tt)
		}
	}
}

// TestWhatIfOfWindow: nothing lasts longer than the window, and where nothing was accepted there is
// nothing to replay.
func TestWhatIfOfWindow(t *testing.T) {
	l := listener(8, rate(6, 60), during(rate(6, 200), 300, 6000, none))
	e := &evidence.Evidence{WindowMs: 5950, Listeners: []evidence.Listener{l}}
	e.Listeners[0].Timeline[0].AcceptQueue.Len = 9 // and it stood still from the start
	for i := range l.Timeline {
		*l.Timeline[i].Accepts = 0
	}
	w := whatif.WhatIf(e, &l)
	if w == nil || w.Rows[0].AcceptMs != 5950 || w.Rows[0].WaitMs > 5950 || rules.NewSubject(e,
		&l).StallMs != 5950 {
		t.Errorf("%+v", w)
	}
	l.Accepts = ptr(uint64(0))
	if w := whatif.WhatIf(e, &l); w != nil {
		t.Errorf("nothing was accepted: %+v", w)
	}
}

// TestWhatIfClients: who lost more SYNs than a handshake of its kind sends is of another kind,
// unless no kind sends so many.
func TestWhatIfClients(t *testing.T) {
	l := retrying(8, rate(6, 30), rate(6, 10), whatif.RetriesExponential)
	for lost, want := range map[uint64]string{0: "1, 3, 7 and 15 s", 3: "1, 3, 7 and 15 s",
		5: "1, 2, 3, 4, 5, 7 and 11 s", 40: "1, 3, 7 and 15 s"} {
		e := &evidence.Evidence{Clients: []event.ClientCount{{Addr: "10.0.0.1",
			Drops: lost}}}
		if w := whatif.WhatIf(e, &l); !strings.Contains(strings.Join(w.Assumes, "; "),
			want) {
			t.Errorf("%d lost: %q", lost, w.Assumes)
		}
	}
}

// TestWhatIfMoment: a burst is no pace that nobody can keep up with.
func TestWhatIfMoment(t *testing.T) {
	l := listener(128, during(rate(6, 20), 3000, 3100, plus(400)), rate(6, 200))
	if w := whatif.WhatIf(&evidence.Evidence{}, &l); !strings.HasSuffix(w.Says,
		"for a moment connections arrived faster than they are accepted") {
		t.Error(w.Says)
	}
}

// TestBurstClients: the addresses that are known are those that lost packets, not all that came.
func TestBurstClients(t *testing.T) {
	e := evidenceOf(burstWindow(128))
	e.ClientsSeen = ptr(uint64(198))
	for _, f := range Diagnose(e).Findings {
		if f.ID != event.FindingConnectionBurst {
			continue
		}
		for _, ev := range f.Evidence {
			if ev.What == "client addresses that lost packets" {
				return
			}
		}
	}
	t.Error("the clients are not told of as those that lost packets")
}
