// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/session"
)

// counted is what a listener of a hooked accept() had counted, and its queue.
func counted(syns, again, accepts uint64, length uint32) (*probe.Listener, uint64, probe.Entered) {
	return &probe.Listener{Accept: event.Queue{Len: length,
		Limit: 16}}, syns, probe.Entered{Arrivals: accepts + uint64(length), Again: &again, Accepts: &accepts}
}

// readingAt takes a reading so many ms after the start.
func (r *EvidenceRow) readingAt(c *collector, ms uint32, syns, again, accepts uint64,
	length uint32) {
	now, syns, entered := counted(syns, again, accepts, length)
	r.read(c, ms, now, syns, entered)
}

// dropped is the record of a SYN that died so many ms after the start.
func dropped(c *collector, ms int64, attempt uint32) *event.Drop {
	return &event.Drop{Mono: uint64(int64(c.mono) + ms*int64(time.Millisecond)),
		Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
		Action: event.ActionDropped, Attempt: attempt}
}

// steps lists one column of a timeline, -1 where it is not known.
func steps(r *EvidenceRow, field func(*event.TimelinePoint) **uint64) (column []int) {
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

// begun is a collector of steps of 100 ms that began so long ago, with a listener read at the
// start.
func begun(ago time.Duration) (*collector, *EvidenceRow) {
	c := NewCollector(nil, DiagnoseOptions{Duration: time.Minute})
	c.start, c.mono = time.Now().Add(-ago), 5_000_000_000
	r := &EvidenceRow{}
	r.readingAt(c, 0, 1000, 100, 500, 0)
	return c, r
}

// TestDropsByTheirTime: a drop is in the step in which it was, whenever its record comes, and has
// arrived there.
func TestDropsByTheirTime(t *testing.T) {
	c, r := begun(450 * time.Millisecond)
	r.drop(c, dropped(c, -1, 1)) // before the start
	for range 10 {
		r.drop(c, dropped(c, 150, 1))
	}
	r.drop(c, dropped(c, 250, 2))
	r.readingAt(c, 400, 1000+31, 100, 510, 0)
	r.drop(c, dropped(c, 399, 1)) // its record was under way when its arrival was read
	r.readingAt(c, 450, 1000+41, 100, 510, 0)
	wantSteps(t, "drops", steps(r, dropsOfPoint), -1, 10, 1, 1, -1)
	wantSteps(t, "retries", steps(r, retriesOf), 0, 0, 1, 0, 0)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 5, 15, 6, 6, 9)
}

// TestHeldByTheirTick: drops that were only counted are where they were counted.
func TestHeldByTheirTick(t *testing.T) {
	c, r := begun(150 * time.Millisecond)
	r.held(c, event.Count{Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
		Action: event.ActionDropped, Count: 7}, 3)
	r.held(c, event.Count{Cause: event.CauseDeferAccept, Stage: event.StageAck,
		Action: event.ActionIgnored, Count: 9}, 0)
	wantSteps(t, "drops", steps(r, dropsOfPoint), -1, 7)
	wantSteps(t, "retries", steps(r, retriesOf), 0, 3)
}

// TestLateTick: what came between two readings is spread over the time between them.
func TestLateTick(t *testing.T) {
	c, r := begun(time.Second)
	r.readingAt(c, 95, 1000, 100, 500, 3)
	r.readingAt(c, 330, 1000+235, 100+47, 500+2, 5)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 5, 100, 100, 30)
	wantSteps(t, "retries", steps(r, retriesOf), 1, 20, 20, 6)
	wantSteps(t, "accepts", steps(r, acceptsOf), 0, 0, 1, 1)
	if r.points[1].AcceptQueue != nil || r.points[3].AcceptQueue.Len != 5 || !r.told {
		t.Errorf("queues %+v", r.points)
	}
}

// TestPeakAccepts: a pace is what was accepted in half a step or more, wherever in the steps that
// was.
func TestPeakAccepts(t *testing.T) {
	c, r := begun(time.Second)
	r.readingAt(c, 70, 1000, 100, 500+1, 20)
	r.readingAt(c, 130, 1000, 100, 500+1+18, 2)
	wantSteps(t, "accepts", steps(r, acceptsOf), 10, 9)
	r.readingAt(c, 131, 1000, 100, 500+1+18+2, 0) // no pace
	if r.peak != 30 {
		t.Errorf("a pace of %d in a step, want 30", r.peak)
	}
}

// TestUnreadSteps: of steps in which others were read nothing is known, and of those before a
// listener opened that nothing came.
func TestUnreadSteps(t *testing.T) {
	c, r := begun(time.Second)
	r.skipped = true
	r.drop(c, dropped(c, 150, 1))
	r.readingAt(c, 350, 1000+500, 100, 500+500, 0)
	r.readingAt(c, 390, 1000+507, 100, 500+505, 0)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 0, -1, -1, 7)
	wantSteps(t, "accepts", steps(r, acceptsOf), 0, -1, -1, 5)
	wantSteps(t, "drops", steps(r, dropsOfPoint), -1, 1, -1, -1)

	late := &EvidenceRow{}
	late.readingAt(c, 210, 1000, 0, 500, 0)
	wantSteps(t, "arrivals of one that was found late", steps(late, arrivalsOf), -1, -1, 0)

	born := &EvidenceRow{born: true, readAt: 200}
	born.readingAt(c, 400, 20, 0, 10, 10)
	wantSteps(t, "arrivals of one that opened", steps(born, arrivalsOf), 0, 0, 10, 10, 0)
	wantSteps(t, "accepts of one that opened", steps(born, acceptsOf), 0, 0, 5, 5, 0)
}

// TestSetOut: a first reading that took its time leaves no step behind of which nothing is known.
func TestSetOut(t *testing.T) {
	c := NewCollector(nil, DiagnoseOptions{Duration: time.Minute})
	c.setOut()
	r := &EvidenceRow{}
	c.Rows[1] = r
	r.readingAt(c, 250, 1000, 0, 500, 3)
	c.setOut()
	r.readingAt(c, 150, 1000+15, 0, 500, 2)
	wantSteps(t, "arrivals", steps(r, arrivalsOf), 10, 5)
	if q := r.points[0].AcceptQueue; q == nil || q.Len != 3 || r.points[1].OffsetMs != 100 {
		t.Errorf("points %+v", r.points)
	}
}

// TestRetriesUntold: with tracepoints nobody sees which member of a group a connection was for, and
// a table that overflowed does not know a first try from a later one.
func TestRetriesUntold(t *testing.T) {
	c, r := begun(time.Second)
	now, syns, entered := counted(1005, 100, 500, 0)
	entered.Accepts, now.Reuseport.Members = nil, 2
	r.read(c, 50, now, syns, entered)
	if r.told {
		t.Error("retries of a member of a group are said to be known")
	}
	r.drop(c, dropped(c, 60, 0))
	if !r.forgot {
		t.Error("an unknown try is taken for a first one")
	}
}

// TestInferredAccepts: where accept() is not hooked, what entered and is not there any more was
// accepted.
func TestInferredAccepts(t *testing.T) {
	c := NewCollector(nil, DiagnoseOptions{Duration: time.Minute})
	infer := func(r *EvidenceRow, ms uint32, entered uint64, length uint32) {
		r.read(c, ms, &probe.Listener{Accept: event.Queue{Len: length}}, entered,
			probe.Entered{Arrivals: entered, Again: new(uint64)})
	}
	there, born := &EvidenceRow{}, &EvidenceRow{born: true}
	infer(there, 10, 100, 7)
	infer(there, 20, 105, 4)
	infer(born, 20, 105, 5)
	wantSteps(t, "accepts", steps(there, acceptsOf), 8)
	wantSteps(t, "accepts of one that opened", steps(born, acceptsOf), 100)
}

// TestManyDeaths: more kinds of deaths than are told apart are counted all the same.
func TestManyDeaths(t *testing.T) {
	c := NewCollector(nil, DiagnoseOptions{Duration: time.Minute})
	const ports = 2 * maxDeaths
	for port := range uint16(ports) {
		err := c.Drop(&event.Drop{Cause: event.CauseNoListener, Stage: event.StageIngress,
			Action: event.ActionReset, Server: &event.Endpoint{Port: 1 + port}})
		if err != nil {
			t.Fatal(err)
		}
	}
	var n uint64
	for _, count := range c.deaths {
		n += count.count
	}
	if n != ports || len(c.deaths) != maxDeaths+1 {
		t.Errorf("%d deaths of %d kinds, want %d of %d", n, len(c.deaths), ports,
			maxDeaths+1)
	}
	if err := c.Held(event.Held{Cause: event.CauseNoListener, Stage: event.StageIngress,
		Action: event.ActionReset, Count: 5}); err != nil {
		t.Fatal(err)
	}
	if c.drops != ports+5 {
		t.Errorf("%d dropped or reset, want %d", c.drops, ports+5)
	}
}

// TestSilence: what a filter hides is not called healthy.
func TestSilence(t *testing.T) {
	var all, client, cause, stage, nobody session.Watch
	client.Filter.Clients = append(client.Filter.Clients, netip.MustParsePrefix("10.0.0.0/8"))
	cause.Filter.Causes = []event.Cause{event.CauseSynQueueFull}
	stage.Filter.Stages = []event.Stage{event.StageTimer}
	nobody.Owner.Comm = "nobody"
	all.Filter.Ports = []probe.PortRange{{Low: 80, High: 80}}
	for _, c := range []struct {
		name      string
		watch     session.Watch
		listeners int
		silent    bool
	}{
		{"a port", all, 0, false}, {"a client", client, 1, true}, {"a cause", cause, 1,
			true}, {"a stage", stage, 1, true},
		{"somebody's", nobody, 1, false}, {"nobody's", nobody, 0, true},
	} {
		if got := silence(c.watch, c.listeners); (got != "") != c.silent {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// TestAskedBacklogForgotten: what listen() asked for is believed as long as the limit is what it
// led to.
func TestAskedBacklogForgotten(t *testing.T) {
	const socket = 7
	opened := func(limit, backlog uint32, asked bool) *session.Listeners {
		l := session.NewListeners(probe.Filter{})
		l.Open(&probe.Message{Time: 5, Backlog: backlog, Asked: asked,
			Listener: probe.Listener{Known: true, Member: true, Socket: socket,
				Accept: event.Queue{Limit: limit}}})
		return l
	}
	now := func(limit uint32) *probe.Listener {
		return &probe.Listener{Socket: socket, Accept: event.Queue{Limit: limit}}
	}
	for _, tt := range []struct {
		name string
		l    *session.Listeners
		now  uint32
		want int // -1: not known
	}{
		{"cut", opened(128, 512, true), 128, 512},
		{"as asked", opened(128, 128, true), 128, 128},
		{"listen() was called again", opened(128, 512, true), 256, -1},
		{"less than the limit", opened(128, 64, true), 128, -1},
		{"not seen", opened(128, 0, false), 128, -1},
		{"a listener of before", session.NewListeners(probe.Filter{}), 128, -1},
	} {
		got := -1
		if asked := tt.l.Asked(now(tt.now)); asked != nil {
			got = int(*asked)
		}
		if got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if at := opened(128, 512, true).OpenedAt(socket); at != 5 {
		t.Errorf("opened at %d, want 5", at)
	}
}
