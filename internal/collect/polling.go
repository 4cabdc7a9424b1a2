// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
)

// What is counted is read at every tick, for all listeners at once. A listener's queues are read
// only where something may have changed: where nothing came and nothing waited, nothing has.

// How many listeners whose queues are neither full nor left alone are read at one tick, and how
// long one may go unread to which nothing comes.
const (
	readAtOnce  = 16
	lookedUp    = 128 // of how many it is asked one by one what arrived
	restedEvery = time.Second
)

// followed are the listeners whose queues are followed.
type followed struct {
	tracked   []*EvidenceRow // those
	stirring  []*EvidenceRow // those that something came to
	first     []*EvidenceRow // where there are more than can be followed: those by the lowest ports
	retrack   bool           // they are to be chosen anew
	trackedAt time.Time
	sockets   []uint64                  // of the last tick, to be used again
	sums      map[uint64]probe.Arrivals // likewise
	arrivedAt time.Time                 // of the last reading of all, where they are many
}

// poll reads the listeners' queues, and what arrived and was accepted since the last
// time: of all, or of those whose turn it is.
func (c *collector) poll(all bool) error {
	if err := c.readArrivals(all); err != nil {
		return err
	}
	c.track()
	now := time.Now()
	closing := c.session.Listeners.Closing()
	var calm []*EvidenceRow
	for _, r := range c.tracked {
		switch {
		case r.closed != nil:
		case !closing && !all && r.rests(now):
			r.still(c)
		case all || r.restless(now):
			if err := c.pollOne(r, now); err != nil {
				return err
			}
		default:
			calm = append(calm, r)
		}
	}
	if len(calm) > readAtOnce { // by turns
		slices.SortFunc(calm,
			func(a, b *EvidenceRow) int { return a.lookedAt.Compare(b.lookedAt) })
		calm = calm[:readAtOnce]
	}
	for _, r := range calm {
		if err := c.pollOne(r, now); err != nil {
			return err
		}
	}
	c.stand(c.tracked)
	return nil
}

// readArrivals reads what arrived at the listeners: at all, or, where they are many and all were
// read a moment ago, at those that are followed. Of the others it is noticed that something did.
func (c *collector) readArrivals(all bool) error {
	c.sockets = c.sockets[:0]
	now := time.Now()
	switch {
	case len(c.Rows) == 0:
		return nil
	case len(c.Rows) <= lookedUp:
		for socket := range c.Rows {
			c.sockets = append(c.sockets, socket)
		}
	case all || now.Sub(c.arrivedAt) >= restedEvery:
		c.arrivedAt = now
	default:
		for _, r := range c.tracked {
			c.sockets = append(c.sockets, r.Listener.Socket)
		}
	}
	clear(c.sums)
	if err := c.session.Probe.ArrivedAt(c.sockets, c.sums); err != nil {
		return err
	}
	for _, socket := range c.sockets {
		if r := c.Rows[socket]; r != nil {
			c.arrivedTo(r, c.sums[socket])
		}
		delete(c.sums, socket)
	}
	for socket, sum := range c.sums {
		r := c.Rows[socket]
		switch {
		case r == nil:
		case len(c.sockets) == 0:
			c.arrivedTo(r, sum)
		default: // a part of the sum
			c.stir(r)
		}
	}
	return nil
}

// arrivedTo takes what arrived at a listener by now.
func (c *collector) arrivedTo(r *EvidenceRow, sum probe.Arrivals) {
	if sum.Syn < r.arrived.Syn || sum.Ack < r.arrived.Ack || sum.Syn+sum.Ack == 0 {
		return // some of it is on its way between two tables
	}
	c.syns += sum.Syn - r.arrived.Syn
	r.arrived = sum
	c.stir(r)
}

// stir notes that something came to a listener, or waits there.
func (c *collector) stir(r *EvidenceRow) {
	if !r.stirred {
		r.stirred, c.retrack = true, true
		c.stirring = append(c.stirring, r)
	}
}

// trackEvery is how often it is chosen anew which listeners are followed, where there are more than
// can be.
const trackEvery = time.Second

// track chooses the listeners whose queues are followed: all, or those in most trouble.
func (c *collector) track() {
	few := len(c.Rows) <= maxPolled
	if !c.retrack && (few || time.Since(c.trackedAt) < trackEvery) {
		return
	}
	c.retrack, c.trackedAt = false, time.Now()
	if few {
		c.tracked = slices.Collect(maps.Values(c.Rows))
		return
	}
	candidates := slices.Clone(c.stirring)
	for _, r := range c.first {
		if !r.stirred {
			candidates = append(candidates, r)
		}
	}
	slices.SortFunc(candidates, inTrouble)
	c.tracked = candidates[:min(len(candidates), maxPolled)]
	for _, r := range c.Rows {
		if !r.skipped && !slices.Contains(c.tracked, r) {
			r.skipped, r.gaps = true, true
		}
	}
}

// rests tells whether nothing can have changed since the listener was read. What came to one of a
// group may have been counted to another.
func (r *EvidenceRow) rests(now time.Time) bool {
	return r.began && !r.skipped && !r.undivided && r.arrived == r.seen && r.queue.Len == 0 &&
		r.Listener.Syn.Len == 0 && now.Sub(r.lookedAt) < restedEvery
}

// restless tells whether the listener is to be read at every tick: nothing is known of it yet, or
// it is, or was, in trouble.
func (r *EvidenceRow) restless(now time.Time) bool {
	return !r.began || r.skipped || r.halfFull() || r.stands > 0 ||
		now.Sub(r.droppedAt) < calmAfter
}

// halfFull tells whether its accept queue was more than half full when it was read.
func (r *EvidenceRow) halfFull() bool { return r.queue.Len > r.queue.Limit/2 }

// still takes a reading that is the same as the last one.
func (r *EvidenceRow) still(c *collector) {
	now := r.Listener
	r.read(c, c.offset(), &now, r.arrived.Syn, r.entered)
}

// pollOne reads a listener.
func (c *collector) pollOne(r *EvidenceRow, now time.Time) error {
	arrived := r.arrived // before its queues: what came in between is of the next reading
	l, ok, err := c.session.Probe.ReadListener(&r.Listener)
	if err != nil {
		return err
	}
	if !ok {
		at := uint64(c.offset())
		r.closed = &at
		r.queue = event.Queue{}
		return nil
	}
	if r.entered, err = c.session.Probe.Entered(r.Listener.Socket, arrived); err != nil {
		return err
	}
	r.queue, r.Listener.Accept, r.Listener.Syn, r.Listener.Reuseport.Members = l.Accept, l.Accept, l.Syn, l.Reuseport.Members
	r.seen, r.lookedAt = arrived, now
	r.read(c, c.offset(), &l, arrived.Syn, r.entered)
	if r.queue.Len > 0 {
		c.stir(r)
	}
	if r.halfFull() || r.stands >= standsAlone {
		c.alarm()
	}
	return nil
}

// standsAlone is how long connections wait and none is accepted, in ms, before it is looked at who
// should have: less than what the loop must stand still for to be called blocked.
const standsAlone = 150

// stand tells which listeners have nobody who takes anything out of their queue: it is full, or
// that lasts.
func (c *collector) stand(rows []*EvidenceRow) {
	if c.shortages == nil { // not begun yet
		return
	}
	var still []*EvidenceRow
	for _, r := range rows {
		if r.closed == nil &&
			(r.stands >= standsLong || r.stands > 0 && r.queue.Len > r.queue.Limit) {
			still = append(still, r)
		}
	}
	slices.SortFunc(still, inTrouble)
	var now []standing
	for _, r := range still[:min(len(still), watchedListeners)] {
		now = append(now,
			standing{r.Listener.Inode, r.processes, r.queue.Len > r.queue.Limit})
	}
	c.shortages.stand(now)
}

// inTrouble orders listeners: those that dropped most first, then the fullest.
func inTrouble(a, b *EvidenceRow) int {
	return cmp.Or(cmp.Compare(dropsOf(b.counts), dropsOf(a.counts)),
		cmp.Compare(b.queue.Len, a.queue.Len),
		cmp.Compare(b.arrived.Syn, a.arrived.Syn), cmp.Compare(a.Listener.Port,
			b.Listener.Port), cmp.Compare(a.Listener.Socket, b.Listener.Socket))
}
