// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"slices"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
)

// counted is what a listener of a hooked accept() had counted, and its queue.
func counted(syns, again, accepts uint64, length uint32) (*message.Listener, uint64, listener.Entered) {
	return &message.Listener{Accept: event.Queue{Len: length,
			Limit: 16}}, syns, listener.Entered{
			Arrivals: accepts + uint64(length), Again: &again, Accepts: &accepts}
}

// readingAt takes a reading so many ms after the start.
func (r *Row) readingAt(w *Watch, ms uint32, syns, again, accepts uint64,
	length uint32) {
	now, syns, entered := counted(syns, again, accepts, length)
	r.read(&w.Clock, ms, now, syns, entered)
}

// dropped is the record of a SYN that died so many ms after the start.
func dropped(w *Watch, ms int64, attempt uint32) *event.Drop {
	return &event.Drop{Mono: uint64(int64(w.mono) + ms*int64(time.Millisecond)),
		Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
		Action: event.ActionDropped, Attempt: attempt}
}

// steps lists one column of a timeline, -1 where it is not known.
func steps(r *Row, field func(*event.TimelinePoint) **uint64) (column []int) {
	for i := range r.points {
		if v := *field(&r.points[i]); v != nil {
			column = append(column, int(*v))
		} else {
			column = append(column, -1)
		}
	}
	return column
}

func dropsOfPoint(p *event.TimelinePoint) **uint64 { return &p.Drops }

func wantSteps(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// begun is a watch of steps of 100 ms that began so long ago, with a listener read at the
// start.
func begun(ago time.Duration) (*Watch, *Row) {
	w := New(nil, time.Minute)
	w.Clock.Start, w.mono = time.Now().Add(-ago), 5_000_000_000
	r := &Row{}
	r.readingAt(w, 0, 1000, 100, 500, 0)
	return w, r
}

// TestDropsByTheirTime: a drop is in the step in which it was, whenever its record comes, and has
// arrived there.
func TestDropsByTheirTime(t *testing.T) {
	w, r := begun(450 * time.Millisecond)
	r.drop(&w.Clock, dropped(w, -1, 1)) // before the start
	for range 10 {
		r.drop(&w.Clock, dropped(w, 150, 1))
	}
	r.drop(&w.Clock, dropped(w, 250, 2))
	r.readingAt(w, 400, 1000+31, 100, 510, 0)
	r.drop(&w.Clock, dropped(w, 399, 1)) // its record was under way when its arrival was read
	r.readingAt(w, 450, 1000+41, 100, 510, 0)
	wantSteps(t, "drops", steps(r, dropsOfPoint), -1, 10, 1, 1, -1)
	wantSteps(t, "retries", steps(r, retriesOf), 0, 0, 1, 0, 0)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 5, 15, 6, 6, 9)
}

// TestSuppressedByTheirTick: drops without records are where they were counted.
func TestSuppressedByTheirTick(t *testing.T) {
	w, r := begun(150 * time.Millisecond)
	r.suppressed(&w.Clock, event.Count{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
		Action: event.ActionDropped, Count: 7}, 3)
	r.suppressed(&w.Clock, event.Count{Cause: event.CauseDeferAccept, Stage: event.StageAck,
		Action: event.ActionIgnored, Count: 9}, 0)
	wantSteps(t, "drops", steps(r, dropsOfPoint), -1, 7)
	wantSteps(t, "retries", steps(r, retriesOf), 0, 3)
}

// TestLateTick: what came between two readings is spread over the time between them.
func TestLateTick(t *testing.T) {
	w, r := begun(time.Second)
	r.readingAt(w, 95, 1000, 100, 500, 3)
	r.readingAt(w, 330, 1000+235, 100+47, 500+2, 5)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 5, 100, 100, 30)
	wantSteps(t, "retries", steps(r, retriesOf), 1, 20, 20, 6)
	wantSteps(t, "accepts", steps(r, acceptsOf), 0, 0, 1, 1)
	if r.points[1].AcceptQueue != nil || r.points[3].AcceptQueue.Len != 5 || !r.counted {
		t.Errorf("queues %+v", r.points)
	}
}

// TestPeakAccepts: a pace is what was accepted in half a step or more, wherever in the steps that
// was.
func TestPeakAccepts(t *testing.T) {
	w, r := begun(time.Second)
	r.readingAt(w, 70, 1000, 100, 500+1, 20)
	r.readingAt(w, 130, 1000, 100, 500+1+18, 2)
	wantSteps(t, "accepts", steps(r, acceptsOf), 10, 9)
	r.readingAt(w, 131, 1000, 100, 500+1+18+2, 0) // no pace
	if r.peak != 30 {
		t.Errorf("a pace of %d in a step, want 30", r.peak)
	}
}

// TestUnreadSteps: of steps in which others were read nothing is known, and of those before a
// listener opened that nothing came.
func TestUnreadSteps(t *testing.T) {
	w, r := begun(time.Second)
	r.Skipped = true
	r.drop(&w.Clock, dropped(w, 150, 1))
	r.readingAt(w, 350, 1000+500, 100, 500+500, 0)
	r.readingAt(w, 390, 1000+507, 100, 500+505, 0)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 0, -1, -1, 7)
	wantSteps(t, "accepts", steps(r, acceptsOf), 0, -1, -1, 5)
	wantSteps(t, "drops", steps(r, dropsOfPoint), -1, 1, -1, -1)

	late := &Row{}
	late.readingAt(w, 210, 1000, 0, 500, 0)
	wantSteps(t, "arrivals of one that was found late", steps(late, arrivalsOf), -1, -1, 0)

	born := &Row{born: true, readAt: 200}
	born.readingAt(w, 400, 20, 0, 10, 10)
	wantSteps(t, "arrivals of one that opened", steps(born, arrivalsOf), 0, 0, 10, 10, 0)
	wantSteps(t, "accepts of one that opened", steps(born, acceptsOf), 0, 0, 5, 5, 0)
}

// TestStart: a first reading that took its time leaves no step behind of which nothing is known.
func TestStart(t *testing.T) {
	w := New(nil, time.Minute)
	w.Start()
	r := &Row{}
	w.Rows[1] = r
	r.readingAt(w, 250, 1000, 0, 500, 3)
	w.Start()
	r.readingAt(w, 150, 1000+15, 0, 500, 2)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 10, 5)
	if q := r.points[0].AcceptQueue; q == nil || q.Len != 3 || r.points[1].OffsetMs != 100 {
		t.Errorf("points %+v", r.points)
	}
}

// TestRetriesUncounted: with tracepoints nobody sees which member of a group a connection was for,
// and a table that overflowed does not know a first try from a later one.
func TestRetriesUncounted(t *testing.T) {
	w, r := begun(time.Second)
	now, syns, entered := counted(1005, 100, 500, 0)
	entered.Accepts, now.Reuseport.Members = nil, 2
	r.read(&w.Clock, 50, now, syns, entered)
	if r.counted {
		t.Error("retries of a member of a group are said to be known")
	}
	r.drop(&w.Clock, dropped(w, 60, 0))
	if !r.forgot {
		t.Error("an unknown try is taken for a first one")
	}
}

// TestInferredAccepts: where accept() is not hooked, what entered and is not there any more was
// accepted.
func TestInferredAccepts(t *testing.T) {
	w := New(nil, time.Minute)
	infer := func(r *Row, ms uint32, entered uint64, length uint32) {
		r.read(&w.Clock, ms, &message.Listener{Accept: event.Queue{Len: length}}, entered,
			listener.Entered{Arrivals: entered, Again: new(uint64)})
	}
	there, born := &Row{}, &Row{born: true}
	infer(there, 10, 100, 7)
	infer(there, 20, 105, 4)
	infer(born, 20, 105, 5)
	wantSteps(t, "accepts", steps(there, acceptsOf), 8)
	wantSteps(t, "accepts of one that opened", steps(born, acceptsOf), 100)
}
