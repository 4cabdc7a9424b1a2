// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// Handshakes adds up what became of the handshakes that reached the listeners. It is nil where
// SYNs, or what was finished, were not counted, or the filters left out a part of what died.
func Handshakes(e *Evidence) *event.Handshakes {
	if e.Narrowed || e.Silence != "" || e.Lacks(NeedSyns) || len(e.Listeners) == 0 {
		return nil
	}
	var sum account
	if e.GroupSyns != nil {
		if e.GroupFinished == nil {
			return nil
		}
		sum.begun += int64(*e.GroupSyns)
		sum.Finished += *e.GroupFinished
	}
	for i := range e.Listeners {
		l := &e.Listeners[i]
		if l.Syns == nil && e.GroupSyns == nil || !sum.add(l) {
			return nil
		}
	}
	sum.close()
	return &sum.Handshakes
}

// account is the sum while it is made.
type account struct {
	event.Handshakes
	begun     int64  // may be less than nothing until all listeners are in
	cookies   uint64 // sent
	queued    uint64 // half-open at the end
	held      uint64 // of the half-open, those that TCP_DEFER_ACCEPT holds back
	lastMs    uint64 // SYNs of the last YoungHandshakeMs
	mayAgain  uint64 // SYNs that may have been sent again to a handshake that is counted already
	inFlight  uint64 // those that may have finished between the end of the counting and the last reading of the queue
	oldUnseen bool   // some listener's queue at the end is not known
}

// add takes a listener's part, and reports whether it is known.
func (a *account) add(l *Listener) bool {
	finished, known := l.HandshakesFinished()
	if !known && l.Syns != nil {
		return false
	}
	a.begun += int64(Value(l.Syns)) - int64(Value(l.SynsAgain)) - int64(l.denied()) +
		int64(Value(l.HalfOpenBefore))
	a.Finished += finished
	a.Ended += l.BadAcks.ByClient
	a.Died += l.killed()
	a.cookies += Value(l.Cookies)
	switch q := l.ID.SynQueue; {
	case l.ClosedMs != nil:
	case q != nil:
		a.queued += uint64(q.Len)
	default:
		a.oldUnseen = true
	}
	if l.Deferred != nil {
		a.held += l.Deferred.AtEnd
	}
	if q := l.ID.AcceptQueue; q != nil && l.ClosedMs == nil {
		a.Waiting += uint64(q.Len)
	}
	if l.Late != nil {
		a.Late = Sum(a.Late, l.Late)
	}
	a.lastMs += l.arrivedWithin(event.YoungHandshakeMs)
	a.inFlight += l.inFlight()
	if l.SynsAgain == nil { // each had its SYN-ACK sent again
		a.mayAgain += Value(l.SynAcksAgain)
	}
	return true
}

// close works out what is left.
func (a *account) close() {
	// Of handshakes that began before, or of a SYN that ended another's, more may have ended
	// than are known to have begun.
	ended := a.Finished + a.Ended + a.Died
	a.Begun = uint64(max(a.begun, int64(ended), 0))
	rest := a.Begun - ended
	take := func(n uint64) uint64 {
		n = min(n, rest)
		rest -= n
		return n
	}
	a.Held = take(min(a.held, a.queued))
	a.Open = take(min(a.queued-a.Held, a.lastMs))
	a.Unanswered = take(a.queued - min(a.queued, a.Held+a.Open))
	a.Begun -= take(a.mayAgain)
	a.Cookies = take(a.cookies)
	a.Open += take(a.inFlight)
	a.Unaccounted = rest
}

// HandshakesFinished is how many handshakes came to their end: counted as such, or accepted and
// waiting to be.
func (l *Listener) HandshakesFinished() (uint64, bool) {
	switch q := l.ID.AcceptQueue; {
	case l.Finished != nil:
		return *l.Finished, true
	case l.Accepts != nil && q != nil:
		return *l.Accepts + uint64(q.Len), true
	}
	return 0, false
}

// denied is how many of the SYNs were dropped, and began nothing.
func (l *Listener) denied() uint64 {
	var n uint64
	for _, c := range l.Counts {
		if c.Stage == event.StageSyn && c.Action != event.ActionIgnored {
			n += c.Count
		}
	}
	return n
}

// killed is how many half-open handshakes came to another end than the client's own.
func (l *Listener) killed() uint64 {
	n := l.BadAcks.ByServer
	for _, c := range l.Counts {
		switch {
		case c.Stage == event.StageTimer, c.Cause == event.CauseICMPError:
			n += c.Count
		case c.Stage == event.StageAck && c.Action == event.ActionReset &&
			slices.Contains(endsHandshake, c.Cause):
			n += c.Count
		}
	}
	return n
}

// endsHandshake are the causes of which a reset at the ACK takes the half-open handshake with it.
// What fits no handshake ends none, nor does a bad cookie: BadAcks has those that do.
var endsHandshake = []event.Cause{event.CauseAcceptQueueFull, event.CauseNoRouteBack,
	event.CauseNoMemory, event.CauseDeniedByLSM,
	event.CauseListenerClosed, event.CauseKernelOther}

// arrivedWithin is how many SYNs came in the last milliseconds of the window.
func (l *Listener) arrivedWithin(ms uint32) uint64 {
	if len(l.Timeline) == 0 {
		return 0
	}
	end := l.Timeline[len(l.Timeline)-1].OffsetMs + l.StepMs
	var n uint64
	for _, p := range l.Timeline {
		if p.OffsetMs+l.StepMs+ms >= end { // the whole of a step that reaches into it
			n += Value(p.Arrivals)
		}
	}
	return n
}

// closingMs is the end of the window whose readings show how many handshakes are half-open at a
// time.
const closingMs = 1000

// inFlight is how many handshakes may have been half-open when the counting ended, and no more when
// the queue was read after it: as many as were at any reading shortly before, and one.
func (l *Listener) inFlight() uint64 {
	if l.arrivedWithin(closingMs) == 0 {
		return 0
	}
	n := uint64(1)
	for i := len(l.Timeline) - 1; i >= 0 &&
		l.Timeline[i].OffsetMs+closingMs >= l.Timeline[len(l.Timeline)-1].OffsetMs; i-- {
		if q := l.Timeline[i].SynQueue; q != nil {
			n = max(n, uint64(q.Len)+1)
		}
	}
	return n
}

// Lacks reports whether evidence of a kind is not there. What was refused is another matter:
// findings that rest on it are weakened.
func (e *Evidence) Lacks(n Need) bool {
	return slices.ContainsFunc(e.Missing, func(g Gap) bool {
		return g.Need == n &&
			len(g.By) == 0
	})
}

// Limit is that of its accept queue.
func (l *Listener) Limit() (uint32, bool) {
	if l.ID.AcceptQueue != nil {
		return l.ID.AcceptQueue.Limit, true
	}
	for _, p := range l.Timeline {
		if p.AcceptQueue != nil {
			return p.AcceptQueue.Limit, true
		}
	}
	return 0, false
}

// Sum adds two numbers, nil being one that is not known.
func Sum(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	both := *a + *b
	return &both
}

// Dropped counts the listener's packets that died of a cause; ignored ones did not.
func (l *Listener) Dropped(cause event.Cause) uint64 {
	return Died(l.Counts, cause, event.StageUnknown)
}

// DiedOfAll sums what was dropped or reset.
func DiedOfAll(counts []event.Count) uint64 {
	var n uint64
	for _, c := range counts {
		if c.Action != event.ActionIgnored {
			n += c.Count
		}
	}
	return n
}

// Value is what a count is, zero where it is not known: only for sums that may leave it out.
func Value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
