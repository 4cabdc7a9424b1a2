// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"maps"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/collect/threads"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
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

// Poll reads the listeners' queues, and what arrived and was accepted since the last time: of all,
// or of those whose turn it is. It reports whether one of them is in trouble.
func (w *Watch) Poll(all bool) (trouble bool, err error) {
	if err := w.readArrivals(all); err != nil {
		return false, err
	}
	w.track()
	now := time.Now()
	closing := w.session.Listeners.Closing()
	var calm []*Row
	for _, r := range w.tracked {
		switch {
		case r.closed != nil:
		case !closing && !all && r.rests(now):
			r.still(&w.Clock)
		case all || r.restless(now):
			if err := w.pollOne(r, now); err != nil {
				return false, err
			}
			trouble = trouble || r.inTrouble()
		default:
			calm = append(calm, r)
		}
	}
	if len(calm) > readAtOnce { // by turns
		slices.SortFunc(calm,
			func(a, b *Row) int { return a.polledAt.Compare(b.polledAt) })
		calm = calm[:readAtOnce]
	}
	for _, r := range calm {
		if err := w.pollOne(r, now); err != nil {
			return false, err
		}
		trouble = trouble || r.inTrouble()
	}
	return trouble, nil
}

// inTrouble reports whether it is to be found out what the threads of its processes do.
func (r *Row) inTrouble() bool {
	return r.closed == nil && (r.HalfFull() || r.stands >= standsAlone)
}

// readArrivals reads what arrived at the listeners: at all, or, where they are many and all were
// read a moment ago, at those that are followed. Of the others it is noticed that something did.
func (w *Watch) readArrivals(all bool) error {
	w.sockets = w.sockets[:0]
	now := time.Now()
	switch {
	case len(w.Rows) == 0:
		return nil
	case len(w.Rows) <= lookedUp:
		for socket := range w.Rows {
			w.sockets = append(w.sockets, socket)
		}
	case all || now.Sub(w.arrivedAt) >= restedEvery:
		w.arrivedAt = now
	default:
		for _, r := range w.tracked {
			w.sockets = append(w.sockets, r.Listener.Socket)
		}
	}
	clear(w.sums)
	if err := w.session.Probe.ArrivedAt(w.sockets, w.sums); err != nil {
		return err
	}
	for _, socket := range w.sockets {
		if r := w.Rows[socket]; r != nil {
			w.arrivedTo(r, w.sums[socket])
		}
		delete(w.sums, socket)
	}
	for socket, sum := range w.sums {
		r := w.Rows[socket]
		switch {
		case r == nil:
		case len(w.sockets) == 0:
			w.arrivedTo(r, sum)
		default: // a part of the sum
			w.stir(r)
		}
	}
	return nil
}

// arrivedTo takes what arrived at a listener by now.
func (w *Watch) arrivedTo(r *Row, sum listener.Arrivals) {
	if sum.Syn < r.arrived.Syn || sum.Ack < r.arrived.Ack || sum.Syn+sum.Ack == 0 {
		return // some of it is on its way between two tables
	}
	w.SYNs += sum.Syn - r.arrived.Syn
	r.arrived = sum
	w.stir(r)
}

// stir notes that something came to a listener, or waits there.
func (w *Watch) stir(r *Row) {
	if !r.active {
		r.active, w.retrack = true, true
		w.stirring = append(w.stirring, r)
	}
}

// trackEvery is how often it is chosen anew which listeners are followed, where there are more than
// can be.
const trackEvery = time.Second

// track chooses the listeners whose queues are followed: all, or those in most trouble.
func (w *Watch) track() {
	few := len(w.Rows) <= maxPolled
	if !w.retrack && (few || time.Since(w.trackedAt) < trackEvery) {
		return
	}
	w.retrack, w.trackedAt = false, time.Now()
	if few {
		w.tracked = slices.Collect(maps.Values(w.Rows))
		return
	}
	candidates := slices.Clone(w.stirring)
	for _, r := range w.first {
		if !r.active {
			candidates = append(candidates, r)
		}
	}
	slices.SortFunc(candidates, worstFirst)
	w.tracked = candidates[:min(len(candidates), maxPolled)]
	for _, r := range w.Rows {
		if !r.Skipped && !slices.Contains(w.tracked, r) {
			r.Skipped, r.gaps = true, true
		}
	}
}

// pollOne reads a listener.
func (w *Watch) pollOne(r *Row, now time.Time) error {
	arrived := r.arrived // before its queues: what came in between is of the next reading
	l, ok, err := w.session.Probe.ReadListener(&r.Listener)
	if err != nil {
		return err
	}
	if !ok {
		at := uint64(w.Offset())
		r.closed = &at
		r.Queue = event.Queue{}
		return nil
	}
	if r.entered, err = w.session.Probe.Entered(r.Listener.Socket, arrived); err != nil {
		return err
	}
	r.Queue, r.Listener.Accept, r.Listener.Syn = l.Accept, l.Accept, l.Syn
	r.Listener.Reuseport.Members = l.Reuseport.Members
	r.seen, r.polledAt = arrived, now
	r.read(&w.Clock, w.Offset(), &l, arrived.Syn, r.entered)
	if r.Queue.Len > 0 {
		w.stir(r)
	}
	return nil
}

// standsAlone is how long connections wait and none is accepted, in ms, before the threads are
// sampled that should have: less than what the loop must stand still for to be called blocked.
// standsLong is how long that must last where the queue is not full for accept() to be watched.
const (
	standsAlone = 150
	standsLong  = 1000
)

// Standing lists the listeners whose queues nobody takes anything out of: they are full, or that
// lasts.
func (w *Watch) Standing() (list []threads.Standing) {
	var still []*Row
	for _, r := range w.tracked {
		if r.closed == nil &&
			(r.stands >= standsLong || r.stands > 0 && r.Queue.Len > r.Queue.Limit) {
			still = append(still, r)
		}
	}
	slices.SortFunc(still, worstFirst)
	for _, r := range still[:min(len(still), threads.MaxListeners)] {
		list = append(list, threads.Standing{Inode: r.Listener.Inode,
			Processes: r.Processes, Full: r.Queue.Len > r.Queue.Limit})
	}
	return list
}
