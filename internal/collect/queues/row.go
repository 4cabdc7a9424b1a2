// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"cmp"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/collect/threads"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// Row is a listener under watch.
type Row struct {
	Listener  message.Listener
	Processes []event.Process
	counts    []event.Count
	Queue     event.Queue
	cookies   uint64
	unsent    uint64 // handshakes given up since their SYN-ACK could not be sent again
	badAcks   evidence.BadAcks
	deferral  deferral
	halfOpen  *uint64 // when the window began
	late      *uint64 // connections that entered, of those that had a SYN dropped before
	points    []event.TimelinePoint
	closed    *uint64           // when it was seen to be closed, ms since the start
	arrived   listener.Arrivals // at the last tick
	active    bool              // something came to it, or waited there
	droppedAt time.Time         // when it last dropped
	polledAt  time.Time         // when its queues were last read
	seen      listener.Arrivals // then
	entered   listener.Entered  // likewise

	// What the timeline has of it, from the last reading on.
	began   bool   // it was read
	readAt  uint32 // when, ms since the start; before the first reading: when it opened
	born    bool   // it opened after the start: all that it counted is of the window
	syns    uint64 // that have a place in the timeline
	again   uint64
	accepts uint64
	backlog uint32 // in its queue when it was first read
	peak    uint64 // the most accepts between two readings, for the length of a step
	counted bool   // connections that entered after a dropped SYN are counted
	forgot  bool   // of some dropped SYN it was not known whether it came again
	Skipped bool   // there were fuller ones to be read at the last tick
	gaps    bool   // at any
	stands  uint32 // for how long connections have been waiting and none was accepted, ms

	Undivided bool // at some time it was not known which of its group a SYN or a connection came to
	foreign   bool // and some of the group are not under watch
}

// Open reports whether it has listened since the window began, and does.
func (r *Row) Open() bool { return !r.born && r.closed == nil }

// Counts reports whether something came to it that was counted as its own.
func (r *Row) Counts() bool { return r.arrived.Syn > 0 }

// Evidence is what was seen of it.
func (r *Row) Evidence(step time.Duration) evidence.Listener {
	l := evidence.Listener{ID: *session.Described(&r.Listener, true), Counts: r.counts,
		StepMs: uint32(step.Milliseconds()), Timeline: slices.Clone(r.points),
		PeakAccepts: r.peak, RetriesCounted: r.counted && !r.forgot, ClosedMs: r.closed,
		Late: r.late, HalfOpenBefore: r.halfOpen, BadAcks: r.badAcks,
		Deferred: r.deferral.end(), Cookies: &r.cookies, Unsent: &r.unsent}
	if r.began && !r.gaps {
		var accepts uint64
		for _, p := range r.points {
			accepts += evidence.Value(p.Accepts)
		}
		l.Accepts = &accepts
	}
	return l
}

// Unanswered reports whether a SYN-ACK of it was sent again, or failed to be.
func (r *Row) Unanswered() bool {
	return r.Listener.Syn.Len > r.Listener.Syn.Young ||
		slices.ContainsFunc(r.counts, func(c event.Count) bool {
			return c.Cause == event.CauseHandshakeExpired ||
				c.Cause == event.CauseICMPError
		})
}

// HalfFull reports whether its accept queue was more than half full when it was read.
func (r *Row) HalfFull() bool { return r.Queue.Len > r.Queue.Limit/2 }

// rests reports whether nothing can have changed since the listener was read. What came to one of a
// group may have been counted to another.
func (r *Row) rests(now time.Time) bool {
	return r.began && !r.Skipped && !r.Undivided && r.arrived == r.seen && r.Queue.Len == 0 &&
		r.Listener.Syn.Len == 0 && now.Sub(r.polledAt) < restedEvery
}

// restless reports whether the listener is to be read at every tick: nothing is known of it yet, or
// it is, or was, in trouble.
func (r *Row) restless(now time.Time) bool {
	return !r.began || r.Skipped || r.HalfFull() || r.stands > 0 ||
		now.Sub(r.droppedAt) < threads.CalmAfter
}

// still takes a reading that is the same as the last one.
func (r *Row) still(c *Clock) {
	now := r.Listener
	r.read(c, c.Offset(), &now, r.arrived.Syn, r.entered)
}

// worstFirst orders listeners: those that dropped most first, then the fullest.
func worstFirst(a, b *Row) int {
	return cmp.Or(cmp.Compare(dropsOf(b.counts), dropsOf(a.counts)),
		cmp.Compare(b.Queue.Len, a.Queue.Len), cmp.Compare(b.arrived.Syn, a.arrived.Syn),
		cmp.Compare(a.Listener.Port, b.Listener.Port),
		cmp.Compare(a.Listener.Socket, b.Listener.Socket))
}

func dropsOf(counts []event.Count) (n uint64) {
	for _, count := range counts {
		if count.Action != event.ActionIgnored {
			n += count.Count
		}
	}
	return n
}
