// SPDX-License-Identifier: Apache-2.0

// Package whatif replays the attempts to connect against a queue of another length, or a quicker
// process.
package whatif

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// UsualLimits are the values that people set: powers of two, nginx's 511, and the largest that
// somaxconn may be.
var UsualLimits = []uint32{16, 32, 64, 128, 256, 511, 1024, 2048, 4096, 8192, 16384, 32768, 65535}

// LongWaitMs is the longest time in the queue that a larger limit may lead to and still be advised:
// who waits longer is connected and unanswered, which is no better than a SYN sent again after a
// second.
const LongWaitMs = 1000

// shortAcceptMs is the accept time that the replay tries against standstills.
const shortAcceptMs = 100

// WhatIf replays a listener's window with other settings. It is nil where arrivals or accepts over
// time are not known, or nothing was dropped, or nothing was accepted: then no setting is to blame,
// and a larger queue holds more who wait in vain.
func WhatIf(e *evidence.Evidence, l *evidence.Listener) *event.WhatIf {
	observed := l.Dropped(event.CauseAcceptQueueFull)
	limit, known := l.Limit()
	if observed == 0 || l.Accepts != nil && *l.Accepts == 0 || !known || l.StepMs == 0 ||
		len(l.Timeline) == 0 {
		return nil
	}
	present, assumes, ok := replayOf(l, limit)
	if !ok {
		return nil
	}
	w := &event.WhatIf{Assumes: assumes, Observed: observed}
	for _, a := range present.Arrivals {
		w.Arrivals += a
	}
	stall := e.Within(StandstillMs(l))
	add := func(m QueueModel, workers, acceptMs float64) Modelled {
		got := m.Run()
		got.WaitMs = e.Within(got.WaitMs)
		w.Rows = append(w.Rows, event.WhatIfRow{Limit: m.Limit, Workers: workers,
			AcceptMs: acceptMs,
			Dropped:  got.Dropped, Lost: got.Lost, WaitMs: got.WaitMs})
		return got
	}
	present, said := closest(present, l, observed, mostLost(e, l))
	w.Assumes = append(w.Assumes, said...)
	base := add(present, 1, stall)
	w.Rows[0].Present = true
	var roomy roomyLimit
	for _, usual := range UsualLimits {
		if usual <= limit {
			continue
		}
		m := present
		m.Limit = usual
		got := add(m, 1, stall)
		if got.Dropped > 0 {
			continue
		}
		// How short a burst is is reckoned from what it cost; the next one may be shorter.
		if m.Burst > 1 {
			m.Burst = AtOnce
			if m.Run().Dropped > 0 {
				continue
			}
		}
		if roomy = (roomyLimit{usual, got.WaitMs}); roomy.waitMs <= LongWaitMs {
			w.Limit = &usual
		}
		break
	}
	for _, workers := range []float64{2, 4} {
		m := present
		m.Capacity = Scale(present.Capacity, workers)
		add(m, workers, stall)
	}
	if stall > shortAcceptMs && evidence.Value(l.Accepts) > 0 {
		m := present
		m.Capacity = shortened(l, present.Capacity, shortAcceptMs)
		add(m, 1, shortAcceptMs)
		usual, _ := usualCapacity(l, left(l.Timeline))
		w.Assumes = append(w.Assumes,
			fmt.Sprintf("in the row with a standstill of %d ms, the loop goes on after it and accepts %s in %d ms",
				shortAcceptMs, advice.Many(usual, "connection"), l.StepMs))
	}
	if Misses(base.Dropped, observed) {
		w.Limit = nil
	}
	w.Says = sayWhatIf(w, base, stall, roomy, present)
	return w
}

// Misses reports whether a replay of what was has less than half of the packets that died, or more
// than twice as many: then it was not as the replay has it, and what it says of other limits is
// worth nothing. A few are never a matter of halves.
func Misses(replayed, observed uint64) bool {
	const few = 10
	return apart(replayed, observed) > few && (replayed < observed/2 || replayed > 2*observed)
}

// closest finds the ways in which a step's arrivals are spread, and in which clients try again,
// that come closest to what was dropped and to what came again, and says which. lost is what one
// client lost at most: who tries again too seldom to have lost that much is none of them, unless
// all are too few for one address.
func closest(m QueueModel, l *evidence.Listener, observed, lost uint64) (QueueModel, []string) {
	type client struct {
		retries []uint32
		says    string
	}
	again, known := cameAgain(l)
	clients := []client{{nil, "a client whose SYN is dropped does not try again in the window"}}
	switch {
	case !known:
		clients[0].says = "each SYN is a handshake of its own: which came again is not known, so the need is rather less"
	case again > 0:
		clients[0].says = "it fits the drops best that a client whose SYN is dropped does not try again in the window"
		clients = append(clients,
			client{RetriesLinear,
				"it fits the drops best that a dropped SYN comes again 1, 2, 3, 4, 5, 7 and 11 s after the first (clients of Linux 6.5 or later)"},
			client{RetriesExponential,
				"it fits the drops best that a dropped SYN comes again 1, 3, 7 and 15 s after the first (clients of Linux before 6.5)"})
	}
	enough := func(c client) bool { return c.retries == nil || m.attempts(c.retries) >= lost }
	if len(clients) > 1 && slices.ContainsFunc(clients[1:], enough) {
		clients = slices.DeleteFunc(clients, func(c client) bool { return !enough(c) })
	}
	best, off, said := m, ^uint64(0), []string(nil)
	for _, c := range clients {
		for _, burst := range []uint64{1, AtOnce, 2, 4, 8, 16, 32} {
			try := m
			try.Burst, try.Retries = burst, c.retries
			got := try.Run()
			miss := apart(got.Dropped, observed)
			if l.RetriesCounted {
				miss += apart(got.Again, again)
			}
			if miss < off {
				spread := "is spread over them evenly"
				switch {
				case burst == AtOnce:
					spread = "comes at once"
				case burst > 1:
					spread = fmt.Sprintf("comes within %g ms, and a limit is advised that would do if it came at once", float64(m.StepMs)/float64(burst))
				}
				best, off = try, miss
				said = []string{fmt.Sprintf("what arrives within %d ms %s",
					m.StepMs, spread), c.says}
			}
		}
	}
	return best, said
}

// attempts is how many SYNs of one handshake the window has room for.
func (m QueueModel) attempts(retries []uint32) uint64 {
	n := uint64(1)
	for _, ms := range retries {
		if uint64(ms) < uint64(m.StepMs)*uint64(len(m.Arrivals)) {
			n++
		}
	}
	return n
}

// mostLost is how many SYNs the client that lost most did; zero where much of what died are last
// ACKs, which clients send again as well.
func mostLost(e *evidence.Evidence, l *evidence.Listener) uint64 {
	var most uint64
	if 4*evidence.Died(l.Counts, event.CauseAcceptQueueFull,
		event.StageAck) > l.Dropped(event.CauseAcceptQueueFull) {
		return 0
	}
	for _, c := range e.Clients {
		most = max(most, c.Drops)
	}
	return most
}

func apart(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// cameAgain is how many SYNs were of handshakes that had one dropped before; false where none was
// told from a first one.
func cameAgain(l *evidence.Listener) (n uint64, known bool) {
	for _, p := range l.Timeline {
		n += evidence.Value(p.Retries)
		known = known || p.Retries != nil
	}
	return n, known || l.RetriesCounted
}

// Begun is how many handshakes began in each step: arrivals less those that came again. With more
// room nothing would have been dropped before, and these would not have come. One that got through
// is told when its handshake is over, a little after its SYN: what a step has too many of is taken
// off the steps before.
func Begun(points []event.TimelinePoint) []uint64 {
	out := make([]uint64, len(points))
	var owed uint64
	for i := len(points) - 1; i >= 0; i-- {
		arrivals := evidence.Value(points[i].Arrivals)
		owed += evidence.Value(points[i].Retries)
		again := min(arrivals, owed)
		out[i] = arrivals - again
		owed -= again
	}
	return out
}

// roomyLimit is the smallest limit that drops nothing, and how long connections would wait in it; 0
// for none.
type roomyLimit struct {
	limit  uint32
	waitMs float64
}

func sayWhatIf(w *event.WhatIf, base Modelled, stall float64, roomy roomyLimit,
	m QueueModel) string {
	present := w.Rows[0]
	waits := fmt.Sprintf("a limit of %d would have dropped 0 of %s and let some wait for up to %s, unanswered", roomy.limit, advice.Many(w.Arrivals, "handshake"), advice.Seconds(roomy.waitMs))
	switch {
	case base.Dropped == 0:
		return fmt.Sprintf("the replay of %s does not reproduce the drops at the limit of %d: they came faster than the queue was read, so it advises no value",
			advice.Many(w.Arrivals, "handshake"), present.Limit)
	case Misses(base.Dropped, w.Observed):
		return fmt.Sprintf("the replay of %s does not reproduce the drops at the limit of %d, %s: its rows say little, and it advises no value",
			advice.Many(w.Arrivals, "handshake"), present.Limit, advice.Many(w.Observed,
				"packet"))
	case w.Limit != nil:
		return fmt.Sprintf("a limit of %d instead of %d would have dropped 0 of %s",
			*w.Limit, present.Limit, advice.Many(w.Arrivals, "handshake"))
	case roomy.limit > 0 && stall >= LongWaitMs:
		return waits +
			fmt.Sprintf(": the accept loop stands still for %s, and no limit ends that",
				advice.Seconds(stall))
	case roomy.limit > 0 && m.Guessed:
		return waits +
			": at the pace that was seen; whether the loop can be quicker was not"
	case roomy.limit > 0 && m.keepsUp():
		return waits + ": for a moment connections arrived faster than they are accepted"
	case roomy.limit > 0:
		return waits + ": connections arrive faster than they are accepted"
	case stall >= LongWaitMs:
		return fmt.Sprintf("no limit up to %d would have dropped nothing: the accept loop stands still for %s", UsualLimits[len(UsualLimits)-1], advice.Seconds(stall))
	}
	return fmt.Sprintf("no limit up to %d would have dropped nothing: connections arrive faster than they are accepted", UsualLimits[len(UsualLimits)-1])
}

// keepsUp reports whether all that came in the window could have been accepted in it.
func (m QueueModel) keepsUp() bool {
	var came, could uint64
	for i := range m.Arrivals {
		came, could = came+m.Arrivals[i]*One, could+m.Capacity[i]
	}
	return came <= could
}

// Helps reports whether the replay found a limit; with it, which.
func Helps(w *event.WhatIf) (uint32, bool) {
	if w == nil || w.Limit == nil || w.Rows[0].Dropped == 0 {
		return 0, false
	}
	return *w.Limit, true
}

// replayOf makes the model of the window as it was.
func replayOf(l *evidence.Listener, limit uint32) (QueueModel, []string, bool) {
	m := QueueModel{Limit: limit, StepMs: l.StepMs, Arrivals: Begun(l.Timeline)}
	if q := l.Timeline[0].AcceptQueue; q != nil {
		m.Initial = q.Len
	}
	behind := left(l.Timeline)
	usual, sure := usualCapacity(l, behind)
	m.Guessed = !sure
	for i, p := range l.Timeline {
		if p.Arrivals == nil || p.Accepts == nil {
			return m, nil, false
		}
		capacity := *p.Accepts
		// What came in the middle of a step left its first part idle.
		if !behind[i] || i > 0 && !behind[i-1] && capacity > 0 {
			capacity = max(capacity, usual)
		}
		m.Capacity = append(m.Capacity, capacity*One)
	}
	pace := "while nothing waits, %s could be accepted in %d ms, as while something did"
	if !sure {
		pace = "%s could be accepted in %d ms, as many as were at most: more may be possible"
	}
	assumes := []string{
		"the same clients arrive at the same moments, and a handshake is over as soon as its SYN is taken",
		fmt.Sprintf(pace, advice.Many(usual, "connection"), l.StepMs),
		"more workers accept as many times faster, and stand still together",
	}
	if again, known := cameAgain(l); known && !l.RetriesCounted {
		assumes = append(assumes,
			"of SYNs that came again and got through some may count as new, so the need is rather less")
	} else if again > 0 {
		assumes = append(assumes, advice.Many(again,
			"SYN")+" that came again would not have come with more room")
	}
	return m, assumes, true
}

// Waiting reports whether connections were in the queue at some time in a step.
func Waiting(p event.TimelinePoint) bool {
	return p.AcceptQueue != nil && p.AcceptQueue.Len > 0 || evidence.Value(p.Drops) > 0
}

// left says for each step whether connections were left in the queue at its end: then its accepts
// are all that could be done in it. Lengths are the longest in a step, so what is left is reckoned
// from what came and went.
func left(points []event.TimelinePoint) []bool {
	out := make([]bool, len(points))
	var rest uint64
	for i, p := range points {
		came := evidence.Value(p.Arrivals) - min(evidence.Value(p.Arrivals),
			evidence.Value(p.Drops))
		rest += came
		rest -= min(rest, evidence.Value(p.Accepts))
		if p.AcceptQueue != nil {
			rest = min(rest, uint64(p.AcceptQueue.Len))
		}
		// Connections may have waited from before the window, or their ACK came later than
		// their SYN.
		out[i] = rest > 0 || Waiting(p) && evidence.Value(p.Accepts) == 0
	}
	return out
}

// usualCapacity is how many connections a step accepts while some are left from its beginning to
// its end, on average over the steps that accept any. Where there is no such step the quickest that
// was seen is, and sure is false: more may be possible.
func usualCapacity(l *evidence.Listener, behind []bool) (usual uint64, sure bool) {
	var accepts, steps uint64
	most := l.PeakAccepts
	for i, p := range l.Timeline {
		n := evidence.Value(p.Accepts)
		most = max(most, n)
		if n > 0 && behind[i] && (i == 0 || behind[i-1]) {
			accepts += n
			steps++
		}
	}
	if steps == 0 {
		return most, false
	}
	return (accepts + steps - 1) / steps, true
}

// Scale multiplies a capacity.
func Scale(capacity []uint64, by float64) []uint64 {
	out := make([]uint64, len(capacity))
	for i, c := range capacity {
		out[i] = max(c, uint64(float64(c)*by))
	}
	return out
}

// shortened lets no standstill last longer than ms: then the loop goes on at its usual pace.
func shortened(l *evidence.Listener, capacity []uint64, ms uint32) []uint64 {
	out := slices.Clone(capacity)
	usual, _ := usualCapacity(l, left(l.Timeline))
	for _, s := range Stalls(l) {
		for i := s.From + int(ms/l.StepMs); i < s.To; i++ {
			out[i] = max(out[i], usual*One)
		}
	}
	return out
}

// Stall is a run of steps in which connections waited and none was accepted: from, to (exclusive).
type Stall struct{ From, To int }

// Stalls finds the standstills. On a busy machine a reading may come late: then steps go by in
// which the queue was not read. They belong to a standstill if connections waited before and after,
// and no accept was counted in between: what is counted is told with the next reading.
func Stalls(l *evidence.Listener) []Stall {
	var out []Stall
	going := false
	full := l.Dropped(event.CauseAcceptQueueFull) > 0 // else what was dropped waited for nobody to accept it
	for i, p := range l.Timeline {
		switch {
		case p.Accepts == nil || *p.Accepts > 0:
			going = false
		case p.AcceptQueue == nil: // the next one that was read decides
		case p.AcceptQueue.Len == 0 && !(full && evidence.Value(p.Drops) > 0):
			going = false
		case going:
			out[len(out)-1].To = i + 1
		default:
			out = append(out, Stall{i, i + 1})
			going = true
		}
	}
	return out
}

// StandstillMs is the longest of them, in milliseconds.
func StandstillMs(l *evidence.Listener) float64 {
	longest := 0
	for _, s := range Stalls(l) {
		longest = max(longest, s.To-s.From)
	}
	return float64(longest) * float64(l.StepMs)
}
