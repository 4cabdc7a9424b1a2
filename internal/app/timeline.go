package app

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
)

// point is the step of the timeline that is going on.
func (r *evidenceRow) point(c *collector) *timelinePoint {
	step := uint32(c.step.Milliseconds())
	at := c.offset() / step * step
	if n := len(r.points); n == 0 || r.points[n-1].OffsetMs < at {
		for next := r.next(step); next <= at && len(r.points) < event.MaxTimelinePoints; next += step {
			p := event.TimelinePoint{OffsetMs: next}
			if !r.skipped { // what came in a step that no tick fell into is told in the next
				p.Arrivals, p.Accepts = new(uint64), new(uint64)
			}
			r.points = append(r.points, p)
		}
	}
	return (*timelinePoint)(&r.points[len(r.points)-1])
}

// next is the first step that has no point yet.
func (r *evidenceRow) next(step uint32) uint32 {
	if len(r.points) == 0 {
		return 0
	}
	return r.points[len(r.points)-1].OffsetMs + step
}

// timelinePoint adds to a point.
type timelinePoint event.TimelinePoint

func (p *timelinePoint) drop(count event.Count, attempt uint32) {
	if count.Action == event.ActionIgnored {
		return
	}
	add(&p.Drops, count.Count)
	if attempt > 1 && count.Stage == event.StageSyn {
		add(&p.Retries, count.Count)
	}
}

func add(to **uint64, n uint64) {
	if *to == nil {
		*to = new(uint64)
	}
	**to += n
}

// read takes the queues: the longest of a step stays.
func (p *timelinePoint) read(l *probe.Listener) {
	if p.AcceptQueue == nil || l.Accept.Len > p.AcceptQueue.Len {
		queue := l.Accept
		p.AcceptQueue = &queue
	}
	if p.SynQueue == nil || l.Syn.Len > p.SynQueue.Len {
		queue := l.Syn
		p.SynQueue = &queue
	}
}

// poll reads the listeners' queues, and what arrived and was accepted since the last
// time.
func (c *collector) poll() error {
	arrivals, _, err := c.session.probe.Arrivals()
	if err != nil {
		return err
	}
	syns := make(map[uint64]uint64, len(arrivals))
	for _, a := range arrivals {
		syns[a.Socket] = a.Syn
	}
	c.syns = 0
	for socket, r := range c.rows {
		r.arrived = syns[socket]
		c.syns += r.arrived
	}
	ranked := c.ranked()
	read := min(len(ranked), maxPolled)
	for _, r := range ranked[read:] {
		r.skipped, r.gaps = true, true
	}
	for _, r := range ranked[:read] {
		if err := c.pollOne(r, syns[r.listener.Socket]); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) pollOne(r *evidenceRow, syns uint64) error {
	if r.closed != nil {
		return nil
	}
	now, ok, err := c.session.probe.Look(&r.listener)
	if err != nil {
		return err
	}
	if !ok {
		at := uint64(c.offset())
		r.closed = &at
		r.queue = event.Queue{}
		return nil
	}
	entered, accepts, err := c.session.probe.Entered(r.listener.Socket)
	if err != nil {
		return err
	}
	// Where accept() is not hooked: what entered and is not there any more.
	taken := entered + uint64(r.backlog) - min(entered+uint64(r.backlog), uint64(now.Accept.Len))
	if accepts != nil {
		taken = *accepts
	}
	if !r.began {
		r.began, r.syns, r.backlog = true, syns, now.Accept.Len
		if accepts == nil {
			taken = entered
		}
		r.accepts = taken
	}
	if r.skipped { // what came meanwhile did not come now
		r.syns, r.accepts = syns, taken
	}
	p := r.point(c)
	r.skipped = false
	p.read(&now)
	r.queue, r.listener.Accept, r.listener.Syn = now.Accept, now.Accept, now.Syn
	add(&p.Arrivals, syns-min(syns, r.syns))
	r.syns = syns
	add(&p.Accepts, taken-min(taken, r.accepts))
	r.accepts = max(taken, r.accepts)
	return nil
}
