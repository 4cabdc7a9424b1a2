// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// mix notes which listeners are of a SO_REUSEPORT group whose members the backend cannot tell
// apart. Such a listener stays marked, since what was counted meanwhile stays in its counts.
func (w *Watch) mix(all []message.Listener, undivided map[uint64]bool) {
	for i := range all {
		if !undivided[all[i].Socket] {
			continue
		}
		if r := w.Rows[all[i].Socket]; r != nil {
			r.Undivided = true
			continue
		}
		for _, r := range w.Rows { // a filter keeps this member out
			if session.PlaceOf(&r.Listener) == session.PlaceOf(&all[i]) {
				r.foreign = true
			}
		}
	}
}

// Undivide takes out what was counted to some member of the group, maybe another one.
func Undivide(l *evidence.Listener) {
	l.Syns, l.Accepts, l.Finished = nil, nil, nil
	l.PeakAccepts, l.RetriesCounted, l.Late = 0, false, nil
	for i := range l.Timeline {
		l.Timeline[i].Arrivals, l.Timeline[i].Retries, l.Timeline[i].Accepts = nil, nil, nil
	}
}

// GroupSums is how many SYNs came to all of those together, and how many handshakes they finished:
// final ACKs that did not die. Both are nil where there are none, or where not all of a group are
// under watch.
func (w *Watch) GroupSums(seen map[uint64]event.Seen) (syns, finished *uint64) {
	for _, r := range w.Rows {
		if r.foreign {
			return nil, nil
		}
		if r.Undivided {
			row := seen[r.Listener.Socket]
			add(&syns, row.Syn)
			add(&finished, row.Ack-min(row.Ack, ackDeaths(r)))
		}
	}
	return syns, finished
}

// ackDeaths is how many final ACKs moved counters of the kernel's, but finished nothing: these are
// among the arrivals as well.
func ackDeaths(r *Row) uint64 {
	n := r.badAcks.ByClient + r.badAcks.ByServer
	for _, c := range r.counts {
		if c.Stage == event.StageAck && c.Cause != event.CauseBadHandshakeAck &&
			len(c.Cause.Info().Counters) > 0 {
			n += c.Count
		}
	}
	return n
}
