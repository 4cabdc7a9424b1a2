// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
)

// A timeline is made of two kinds of readings. Records of drops carry the time of their packets,
// which is where they are put, whenever they come. Everything else is counted, and read at
// every tick: what came between two readings is spread over the time between them.

// stepAt is the step of an offset, in ms since the start. Steps up to it are made.
func (r *Row) stepAt(c *Clock, offset uint32) *event.TimelinePoint {
	step := uint32(c.Step.Milliseconds())
	for len(r.points) == 0 || r.next(step) <= offset &&
		len(r.points) < event.MaxTimelinePoints {
		p := event.TimelinePoint{OffsetMs: r.next(step)}
		if (r.began || r.born) && !r.Skipped { // what comes is known once it is read
			p.Arrivals, p.Accepts = new(uint64), new(uint64)
		}
		r.points = append(r.points, p)
	}
	return &r.points[min(int(offset/step), len(r.points)-1)]
}

// next is the offset of the first step that has no point yet.
func (r *Row) next(step uint32) uint32 { return uint32(len(r.points)) * step }

// drop puts a record where its packet died. What died before the start is in no step.
func (r *Row) drop(c *Clock, d *event.Drop) {
	if d.Action == event.ActionIgnored || d.Mono < c.mono {
		return
	}
	p := r.stepAt(c, c.Since(d.Mono))
	add(&p.Drops, 1)
	if d.Stage != event.StageSyn {
		return
	}
	switch {
	case d.Attempt > 1:
		add(&p.Retries, 1)
	case d.Attempt == 0:
		r.forgot = true
	}
	if p.Arrivals != nil { // it arrived as well, and then
		*p.Arrivals++
		r.syns++
	}
}

// suppressed puts drops that have no records where they were counted: nobody knows when they were.
func (r *Row) suppressed(c *Clock, count event.Count, again uint64) {
	if count.Action == event.ActionIgnored {
		return
	}
	p := r.stepAt(c, c.Offset())
	add(&p.Drops, count.Count)
	if count.Stage == event.StageSyn && again > 0 {
		add(&p.Retries, again)
	}
}

// spread puts what was counted between two readings into the steps between them, in
// proportion to the time. All these steps are known by it to be counted.
func (r *Row) spread(c *Clock, from, to uint32, n uint64,
	field func(*event.TimelinePoint) **uint64) {
	step := uint32(c.Step.Milliseconds())
	r.stepAt(c, to)
	from = min(from, to)
	first, last := min(int(from/step), len(r.points)-1), min(int(to/step), len(r.points)-1)
	all, done := uint64(max(to-from, 1)), uint64(0)
	for i := first; i <= last; i++ {
		due := n // the last step takes what is left
		if i < last {
			due = n * uint64(uint32(i+1)*step-from) / all
		}
		add(field(&r.points[i]), due-done)
		done = due
	}
}

func arrivalsOf(p *event.TimelinePoint) **uint64 { return &p.Arrivals }
func retriesOf(p *event.TimelinePoint) **uint64  { return &p.Retries }
func acceptsOf(p *event.TimelinePoint) **uint64  { return &p.Accepts }

func add(to **uint64, n uint64) {
	if *to == nil {
		*to = new(uint64)
	}
	**to += n
}

// see takes the queues: the longest of a step stays.
func see(p *event.TimelinePoint, l *message.Listener) {
	if p.AcceptQueue == nil || l.Accept.Len > p.AcceptQueue.Len {
		queue := l.Accept
		p.AcceptQueue = &queue
	}
	if p.SynQueue == nil || l.Syn.Len > p.SynQueue.Len {
		queue := l.Syn
		p.SynQueue = &queue
	}
}

// start makes the last reading that of offset 0.
func (r *Row) start() {
	r.readAt = 0
	if n := len(r.points); n > 0 {
		r.points = r.points[n-1:]
		r.points[0].OffsetMs = 0
	}
	if r.closed != nil {
		*r.closed = 0
	}
}

// read takes a reading of the listener and of what was counted for it until now.
func (r *Row) read(c *Clock, at uint32, now *message.Listener, syns uint64,
	entered listener.Entered) {
	if !r.began && !r.born && entered.Accepts == nil {
		r.backlog = now.Accept.Len
	}
	if !r.began { // what was half-open at the start, but for what has come since
		n := uint64(now.Syn.Len) - min(uint64(now.Syn.Len), syns)
		r.halfOpen = &n
	}
	// Where accept() is not hooked: what entered and is not there any more.
	inferred := entered.Arrivals + uint64(r.backlog)
	taken := inferred - min(inferred, uint64(now.Accept.Len))
	if entered.Accepts != nil {
		taken = *entered.Accepts
	}
	// With tracepoints nothing is counted as entering for one of a group.
	r.counted = entered.Again != nil && (entered.Accepts != nil || now.Reuseport.Members < 2)
	again := uint64(0)
	if r.counted {
		again = *entered.Again
		r.late = &again
	}
	if !r.began && !r.born ||
		r.Skipped { // what came until now did not come in steps that were read
		r.readAt, r.syns, r.again, r.accepts = at, syns, again, taken
	}
	r.stepAt(c, at) // of the steps until now nothing is known, if it was not read
	r.began, r.Skipped = true, false
	from := r.readAt
	r.readAt = at
	r.spread(c, from, at, syns-min(syns, r.syns), arrivalsOf)
	accepts := taken - min(taken, r.accepts)
	if r.stands += at - min(from, at); accepts > 0 || now.Accept.Len == 0 {
		r.stands = 0
	}
	r.spread(c, from, at, accepts, acceptsOf)
	// A pace that was kept for half a step is taken for one that can be kept for a whole one.
	if step, took := uint64(c.Step.Milliseconds()), uint64(at-min(from, at)); 2*took >= step {
		r.peak = max(r.peak, accepts*step/took)
	}
	if r.counted {
		r.spread(c, from, at, again-min(again, r.again), retriesOf)
	}
	r.syns, r.again, r.accepts = max(syns, r.syns), max(again, r.again), max(taken, r.accepts)
	see(r.stepAt(c, at), now)
}
