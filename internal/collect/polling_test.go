// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
)

// TestRests: a listener is not read again only if nothing came to it and nothing waited there.
func TestRests(t *testing.T) {
	now := time.Now()
	rested := func() *EvidenceRow {
		seen := probe.Arrivals{Socket: 1, Syn: 5, Ack: 5}
		return &EvidenceRow{began: true, arrived: seen, seen: seen,
			lookedAt: now.Add(-restedEvery / 2), queue: event.Queue{Limit: 8}}
	}
	for _, c := range []struct {
		name            string
		change          func(*EvidenceRow)
		rests, restless bool
	}{
		{"nothing came", func(*EvidenceRow) {}, true, false},
		{"a SYN came", func(r *EvidenceRow) { r.arrived.Syn++ }, false, false},
		{"the ACK of a cookie came", func(r *EvidenceRow) { r.arrived.Ack++ }, false,
			false},
		{"a connection waited", func(r *EvidenceRow) { r.queue.Len = 1 }, false, false},
		{"a handshake was half-open", func(r *EvidenceRow) { r.Listener.Syn.Len = 1 },
			false, false},
		{"what came may be counted to another of its group",
			func(r *EvidenceRow) { r.undivided = true }, false, false},
		{"it was read long ago",
			func(r *EvidenceRow) { r.lookedAt = now.Add(-restedEvery) }, false, false},
		{"it was not read", func(r *EvidenceRow) { r.began = false }, false, true},
		{"it was passed over", func(r *EvidenceRow) { r.skipped = true }, false, true},
		{"its queue is more than half full", func(r *EvidenceRow) { r.queue.Len = 5 },
			false, true},
		{"its queue is left alone", func(r *EvidenceRow) { r.queue.Len, r.stands = 1, 50 },
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
	c, r := begun(time.Second)
	c.start = time.Now().Add(-250 * time.Millisecond)
	r.arrived = probe.Arrivals{Syn: 1000, Ack: 500}
	again, accepts := uint64(100), uint64(500)
	r.entered = probe.Entered{Arrivals: 500, Again: &again, Accepts: &accepts}
	r.still(c)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 0, 0, 0)
	wantSteps(t, "accepts", steps(r, acceptsOf), 0, 0, 0)
	if p := r.points[2]; p.AcceptQueue == nil || p.AcceptQueue.Len != 0 {
		t.Errorf("the queue of a listener that rests is not known: %+v", p)
	}
}

// TestTrack: of more listeners than can be followed those in trouble are, wherever they stood
// before, then those to which something came; of the others nothing is said.
func TestTrack(t *testing.T) {
	c := NewCollector(nil, DiagnoseOptions{Duration: time.Minute})
	const many = 10 * maxPolled
	for port := range uint64(many) {
		c.Rows[port] = &EvidenceRow{Listener: probe.Listener{Socket: port,
			Port: uint16(port)}, began: true}
	}
	c.first = c.ranked()[:maxPolled]
	c.retrack = true
	c.track()
	if len(c.tracked) != maxPolled || c.tracked[0] != c.Rows[0] || c.Rows[0].skipped ||
		!c.Rows[many-1].skipped || !c.Rows[many-1].gaps {
		t.Fatalf("%d followed, the first %+v", len(c.tracked), c.tracked[0].Listener)
	}
	dropping := c.Rows[many-1]
	dropping.counts = []event.Count{{Cause: event.CauseAcceptQueueFull,
		Action: event.ActionDropped, Count: 1}}
	c.Rows[many-2].arrived.Syn = 7
	c.stir(c.Rows[many-2])
	c.alarmed(dropping, &dropping.counts[0])
	c.track()
	if c.tracked[0] != dropping || c.tracked[1] != c.Rows[many-2] ||
		len(c.tracked) != maxPolled {
		t.Errorf("followed are %d, first %+v, then %+v", len(c.tracked),
			c.tracked[0].Listener, c.tracked[1].Listener)
	}
	if last := c.Rows[maxPolled-1]; !last.skipped {
		t.Error("one that made room is said to be read")
	}
	if allocated := testing.AllocsPerRun(10, c.track); allocated > 0 {
		t.Errorf("%v allocations at a tick that changes nothing", allocated)
	}
}

// TestAlarms: what starts the close look at threads.
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
		c := NewCollector(nil, DiagnoseOptions{Duration: time.Minute})
		c.attention = newAttention(time.Now())
		c.threads = newThreadWatch(c.attention, nil, time.Minute, nil)
		c.alarmed(&EvidenceRow{}, &tt.count)
		if got := c.attention.close(time.Now()); got != tt.want ||
			got != (len(c.attention.roused) > 0) {
			t.Errorf("%s: looked at closely %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestArrivedTo: what is read while some of it is on its way from one table to another takes
// nothing back.
func TestArrivedTo(t *testing.T) {
	c, r := &collector{}, &EvidenceRow{}
	for _, syns := range []uint64{0, 5, 3, 5, 9} {
		c.arrivedTo(r, probe.Arrivals{Syn: syns})
	}
	if r.arrived.Syn != 9 || c.syns != 9 || !r.stirred {
		t.Errorf("%d SYNs of %d, stirred %t; want 9 of 9", r.arrived.Syn, c.syns, r.stirred)
	}
}
