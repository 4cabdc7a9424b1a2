// SPDX-License-Identifier: Apache-2.0

// Package queues follows the queues of listeners during a window: what came, what was accepted and
// what was dropped, in the steps of a timeline.
package queues

import (
	"maps"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// maxPolled bounds the listeners whose queues are read at every tick.
const maxPolled = 64

// Watch follows the listeners that a session is asked about. It is for one goroutine at a time.
type Watch struct {
	Clock
	Rows map[uint64]*Row // by listener
	SYNs uint64          // that came

	session   *session.Session
	changed   uint64 // what the listeners' changes were when they were last matched
	tracked   []*Row // those whose queues are followed
	stirring  []*Row // those that something came to
	first     []*Row // where there are more than can be followed: those by the lowest ports
	retrack   bool   // they are to be chosen anew
	trackedAt time.Time
	sockets   []uint64                     // of the last tick, to be used again
	sums      map[uint64]listener.Arrivals // likewise
	arrivedAt time.Time                    // of the last reading of all, where they are many
}

// New follows nothing yet. The window is how long it is to last.
func New(s *session.Session, window time.Duration) *Watch {
	return &Watch{Clock: newClock(window), Rows: make(map[uint64]*Row), session: s,
		sums: make(map[uint64]listener.Arrivals)}
}

// Start makes now the start. Readings that were taken before are the first of the window.
func (w *Watch) Start() {
	w.start()
	for _, r := range w.Rows {
		r.start()
	}
}

// Find adds the listeners that match, if there are others than before, and asks who holds those
// that are followed.
func (w *Watch) Find() {
	if now := w.session.Listeners.Changed(); now != w.changed {
		w.changed = now
		w.match()
		return
	}
	for _, r := range w.tracked {
		r.Processes = w.session.Owners.Processes(r.Listener.Socket, kernel.Monotonic())
	}
}

func (w *Watch) match() {
	all := w.session.Listeners.List()
	for i := range all {
		if w.session.Listeners.Matches(&all[i]) {
			w.row(all[i].Socket, &all[i])
		}
	}
	if len(w.Rows) > maxPolled {
		w.first = w.Ranked()[:maxPolled]
	}
	w.mix(all, w.session.Probe.Undivided(all, w.session.Listeners.Lived))
}

// row is a listener's, made if it is new; nil where there are too many.
func (w *Watch) row(socket uint64, l *message.Listener) *Row {
	r := w.Rows[socket]
	if r == nil {
		if len(w.Rows) >= session.MaxKnown {
			return nil
		}
		r = &Row{Listener: *l}
		if at := w.session.Listeners.OpenedAt(socket); at > w.mono {
			r.born, r.readAt = true, w.Since(at)
		}
		w.Rows[socket] = r
		if w.retrack = true; r.born || l.Accept.Len+l.Syn.Len > 0 {
			w.stir(r)
		}
	}
	r.Processes = w.session.Owners.Processes(socket, kernel.Monotonic())
	return r
}

// rowOf is the listener's that a record names; nil where there is none.
func (w *Watch) rowOf(d *event.Drop) *Row {
	if d.Listener == nil {
		return nil
	}
	if r := w.Rows[d.Listener.Key]; r != nil {
		if len(d.Processes) > 0 {
			r.Processes = d.Processes
		}
		return r
	}
	l, ok := w.session.Listeners.Find(d.Listener.Key)
	if !ok {
		return nil
	}
	return w.row(d.Listener.Key, &l)
}

// Cookies takes SYNs that cookies answered, of a listener.
func (w *Watch) Cookies(socket, n uint64) {
	if r := w.Rows[socket]; r != nil {
		r.cookies += n
	}
}

// Cookie takes the record of a SYN that a cookie answered.
func (w *Watch) Cookie(d *event.Drop) {
	if r := w.rowOf(d); r != nil {
		r.cookies++
	}
}

// Suppressed takes packets that have no records. It reports whether the threads of the listener's
// processes are to be sampled closely.
func (w *Watch) Suppressed(h event.Suppressed) (alarm bool) {
	r := w.Rows[h.Listener.Key]
	if r == nil {
		return false
	}
	count := event.Count{Cause: h.Cause, Stage: h.Stage, Action: h.Action, Count: h.Count}
	alarm = w.count(r, count)
	r.badAcks.Add(count, h.Kernel.Counters)
	r.deferral.unseen = r.deferral.unseen || h.Cause == event.CauseDeferAccept
	r.suppressed(&w.Clock, count, h.Again)
	return alarm
}

// Drop takes the record of one packet. It reports whether the threads of the listener's processes
// are to be sampled closely.
func (w *Watch) Drop(d *event.Drop) (alarm bool) {
	r := w.rowOf(d)
	if r == nil {
		return false
	}
	alarm = w.count(r, event.Count{Cause: d.Cause, Stage: d.Stage, Action: d.Action, Count: 1})
	r.badAcks.Record(d)
	if d.Unsent {
		r.unsent++
	}
	if d.Cause == event.CauseDeferAccept {
		r.deferral.ignored(d.Client, w.Since(max(d.Mono, w.mono)))
	}
	r.drop(&w.Clock, d)
	return alarm
}

// count adds to a listener's drops. What its threads did explains those of its accept queue alone.
func (w *Watch) count(r *Row, count event.Count) (alarm bool) {
	r.counts = event.AddCount(r.counts, count)
	if w.stir(r); count.Action == event.ActionIgnored {
		return false
	}
	r.droppedAt = time.Now()
	return count.Cause == event.CauseAcceptQueueFull
}

// Tracked lists the listeners whose queues are followed, those in most trouble first.
func (w *Watch) Tracked() []*Row {
	w.track()
	return slices.SortedFunc(slices.Values(w.tracked), worstFirst)
}

// Ranked lists all listeners, those that dropped most first, then the fullest.
func (w *Watch) Ranked() []*Row { return slices.SortedFunc(maps.Values(w.Rows), worstFirst) }

// HalfFull reports whether one of the queues that are followed was half full when it was read.
func (w *Watch) HalfFull() bool { return slices.ContainsFunc(w.tracked, (*Row).HalfFull) }

// Fullest is the listener with the longest accept queue; nil where all are empty.
func (w *Watch) Fullest() (most *Row) {
	for _, r := range w.stirring {
		if r.Queue.Len > 0 && (most == nil || r.Queue.Len > most.Queue.Len) {
			most = r
		}
	}
	return most
}

// Unanswered reports whether some listener's SYN-ACK was sent again, or failed to be.
func (w *Watch) Unanswered() bool { return slices.ContainsFunc(w.stirring, (*Row).Unanswered) }

// Throughout reports whether a socket that listens at the end did so when the window began.
func (w *Watch) Throughout(inode uint64) bool {
	for _, r := range w.Rows {
		if r.Listener.Inode == inode {
			return r.Open()
		}
	}
	return false
}

// Concerned lists the network namespaces of the listeners.
func (w *Watch) Concerned() map[uint64]bool {
	all := make(map[uint64]bool)
	for _, r := range w.Rows {
		all[r.Listener.NetNS] = true
	}
	return all
}

// Divide notes once more, at the end, whose counts are not known to be their own.
func (w *Watch) Divide() {
	all := w.session.Listeners.List()
	w.mix(all, w.session.Probe.Undivided(all, w.session.Listeners.Lived))
}

// Undivided reports whether any are.
func (w *Watch) Undivided() bool {
	for _, r := range w.Rows {
		if r.Undivided {
			return true
		}
	}
	return false
}
