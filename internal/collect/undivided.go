// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/session"
)

// mix notes which listeners are of a SO_REUSEPORT group whose members the backend cannot tell
// apart. It lasts: what was counted meanwhile stays in their counts.
func (c *collector) mix(all []probe.Listener, undivided map[uint64]bool) {
	for i := range all {
		if !undivided[all[i].Socket] {
			continue
		}
		if r := c.Rows[all[i].Socket]; r != nil {
			r.undivided = true
			continue
		}
		for _, r := range c.Rows { // a filter keeps this member out
			if session.PlaceOf(&r.Listener) == session.PlaceOf(&all[i]) {
				r.foreign = true
			}
		}
	}
}

// undivide takes out what was counted to some member of the group, maybe another one.
func undivide(l *evidence.Listener) {
	l.Syns, l.Accepts, l.Finished = nil, nil, nil
	l.PeakAccepts, l.RetriesTold, l.Late = 0, false, nil
	for i := range l.Timeline {
		l.Timeline[i].Arrivals, l.Timeline[i].Retries, l.Timeline[i].Accepts = nil, nil, nil
	}
}

// groupSums is how many SYNs came to all of those together, and how many handshakes they finished:
// final ACKs that did not die. Both are nil where there are none, or where not all of a group are
// under watch.
func (c *collector) groupSums(seen map[uint64]event.Seen) (syns, finished *uint64) {
	for _, r := range c.Rows {
		if r.foreign {
			return nil, nil
		}
		if r.undivided {
			row := seen[r.Listener.Socket]
			add(&syns, row.Syn)
			add(&finished, row.Ack-min(row.Ack, ackDeaths(r)))
		}
	}
	return syns, finished
}

// ackDeaths is how many final ACKs moved counters of the kernel's, but finished nothing: these are
// among the arrivals as well.
func ackDeaths(r *EvidenceRow) uint64 {
	n := r.badAcks.ByClient + r.badAcks.ByServer
	for _, c := range r.counts {
		if c.Stage == event.StageAck && c.Cause != event.CauseBadHandshakeAck &&
			len(c.Cause.Info().Counters) > 0 {
			n += c.Count
		}
	}
	return n
}
