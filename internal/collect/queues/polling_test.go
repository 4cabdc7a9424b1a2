// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
)

// TestRests: a listener is not read again only if nothing came to it and nothing waited there.
func TestRests(t *testing.T) {
	now := time.Now()
	rested := func() *Row {
		seen := listener.Arrivals{Socket: 1, Syn: 5, Ack: 5}
		return &Row{began: true, arrived: seen, seen: seen,
			polledAt: now.Add(-restedEvery / 2), Queue: event.Queue{Limit: 8}}
	}
	for _, c := range []struct {
		name            string
		change          func(*Row)
		rests, restless bool
	}{
		{"nothing came", func(*Row) {}, true, false},
		{"a SYN came", func(r *Row) { r.arrived.Syn++ }, false, false},
		{"the ACK of a cookie came", func(r *Row) { r.arrived.Ack++ }, false,
			false},
		{"a connection waited", func(r *Row) { r.Queue.Len = 1 }, false, false},
		{"a handshake was half-open", func(r *Row) { r.Listener.Syn.Len = 1 },
			false, false},
		{"what came may be counted to another of its group",
			func(r *Row) { r.Undivided = true }, false, false},
		{"it was read long ago",
			func(r *Row) { r.polledAt = now.Add(-restedEvery) }, false, false},
		{"it was not read", func(r *Row) { r.began = false }, false, true},
		{"it was passed over", func(r *Row) { r.Skipped = true }, false, true},
		{"its queue is more than half full", func(r *Row) { r.Queue.Len = 5 },
			false, true},
		{"its queue is left alone", func(r *Row) { r.Queue.Len, r.stands = 1, 50 },
			false, true},
	} {
		r := rested()
		c.change(r)
		if r.rests(now) != c.rests || r.restless(now) != c.restless {
			t.Errorf("%s: rests %t, restless %t, want %t and %t", c.name, r.rests(now),
				r.restless(now), c.rests, c.restless)
		}
	}
	r := rested()
	if r.droppedAt = now.Add(-time.Second); !r.restless(now) {
		t.Error("one that dropped a moment ago waits for its turn")
	}
}

// TestStill: steps in which a listener rests are known to have had nothing.
func TestStill(t *testing.T) {
	w, r := begun(time.Second)
	w.Clock.Start = time.Now().Add(-250 * time.Millisecond)
	r.arrived = listener.Arrivals{Syn: 1000, Ack: 500}
	again, accepts := uint64(100), uint64(500)
	r.entered = listener.Entered{Arrivals: 500, Again: &again, Accepts: &accepts}
	r.still(&w.Clock)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 0, 0, 0)
	wantSteps(t, "accepts", steps(r, acceptsOf), 0, 0, 0)
	if p := r.points[2]; p.AcceptQueue == nil || p.AcceptQueue.Len != 0 {
		t.Errorf("the queue of a listener that rests is not known: %+v", p)
	}
}

// TestTrack: of more listeners than can be followed those in trouble are, wherever they stood
// before, then those to which something came; of the others nothing is said.
func TestTrack(t *testing.T) {
	w := New(nil, time.Minute)
	const many = 10 * maxPolled
	for port := range uint64(many) {
		w.Rows[port] = &Row{Listener: message.Listener{Socket: port,
			Port: uint16(port)}, began: true}
	}
	w.first = w.Ranked()[:maxPolled]
	w.retrack = true
	w.track()
	if len(w.tracked) != maxPolled || w.tracked[0] != w.Rows[0] || w.Rows[0].Skipped ||
		!w.Rows[many-1].Skipped || !w.Rows[many-1].gaps {
		t.Fatalf("%d followed, the first %+v", len(w.tracked), w.tracked[0].Listener)
	}
	dropping := w.Rows[many-1]
	w.Rows[many-2].arrived.Syn = 7
	w.stir(w.Rows[many-2])
	w.count(dropping, event.Count{Cause: event.CauseAcceptQueueFull,
		Action: event.ActionDropped, Count: 1})
	w.track()
	if w.tracked[0] != dropping || w.tracked[1] != w.Rows[many-2] ||
		len(w.tracked) != maxPolled {
		t.Errorf("followed are %d, first %+v, then %+v", len(w.tracked),
			w.tracked[0].Listener, w.tracked[1].Listener)
	}
	if last := w.Rows[maxPolled-1]; !last.Skipped {
		t.Error("one that made room is said to be read")
	}
	if allocated := testing.AllocsPerRun(10, w.track); allocated > 0 {
		t.Errorf("%v allocations at a tick that changes nothing", allocated)
	}
}

// TestAlarms: after which drops threads are sampled closely.
func TestAlarms(t *testing.T) {
	for _, tt := range []struct {
		name  string
		count event.Count
		want  bool
	}{
		{"the accept queue dropped", event.Count{Cause: event.CauseAcceptQueueFull,
			Stage: event.StageAck, Action: event.ActionDropped}, true},
		{"a client gave up", event.Count{Cause: event.CauseHandshakeExpired,
			Stage: event.StageTimer, Action: event.ActionDropped}, false},
		{"an ACK was put off",
			event.Count{Cause: event.CauseDeferAccept, Stage: event.StageAck,
				Action: event.ActionIgnored}, false},
	} {
		w := New(nil, time.Minute)
		if got := w.count(&Row{}, tt.count); got != tt.want {
			t.Errorf("%s: sampled closely %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestArrivedTo: what is read while some of it is on its way from one table to another takes
// nothing back.
func TestArrivedTo(t *testing.T) {
	w, r := &Watch{}, &Row{}
	for _, syns := range []uint64{0, 5, 3, 5, 9} {
		w.arrivedTo(r, listener.Arrivals{Syn: syns})
	}
	if r.arrived.Syn != 9 || w.SYNs != 9 || !r.active {
		t.Errorf("%d SYNs of %d, stirred %t; want 9 of 9", r.arrived.Syn, w.SYNs, r.active)
	}
}
