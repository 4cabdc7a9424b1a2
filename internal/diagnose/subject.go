// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// dropped counts the listener's packets that died of a cause; ignored ones did not.
func (l *Listener) dropped(cause event.Cause) uint64 {
	return died(l.Counts, cause, event.StageUnknown)
}

// died sums the counts of a cause, at one stage or at all.
func died(counts []event.Count, cause event.Cause, stage event.Stage) uint64 {
	var n uint64
	for _, c := range counts {
		if c.Cause == cause && c.Action != event.ActionIgnored && (stage == event.StageUnknown || c.Stage == stage) {
			n += c.Count
		}
	}
	return n
}

// diedOfAll sums what was dropped or reset.
func diedOfAll(counts []event.Count) uint64 {
	var n uint64
	for _, c := range counts {
		if c.Action != event.ActionIgnored {
			n += c.Count
		}
	}
	return n
}

// limit is that of its accept queue.
func (l *Listener) limit() (uint32, bool) {
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

// doing is what the accepting threads did at a moment.
type doing uint8

const (
	doingUnknown   doing = iota
	doingWaiting         // in accept or poll: ready to accept
	doingAccepting       // on a CPU, in accept
	doingBusy            // on a CPU, elsewhere
	doingStarved         // ready to run, without a CPU
	doingStopped         // stopped, traced or frozen
	doingBlocked         // asleep in something else
	doingParked          // a thread that the language's runtime holds in reserve
	numDoings
)

// waitCalls are the system calls in which a thread that accepts waits for connections.
var waitCalls = []string{"accept", "accept4", "poll", "ppoll", "select", "pselect6", "_newselect", "epoll_wait", "epoll_pwait",
	"epoll_pwait2", "io_uring_enter"}

// waitFrames are kernel functions that tell the same where the call's name does not (restart_syscall).
var waitFrames = []string{"inet_csk_accept", "inet_csk_wait_for_connect", "ep_poll", "do_sys_poll", "do_poll", "do_select", "io_cqring_wait"}

var acceptFrames = []string{"inet_csk_accept", "inet_accept", "do_accept", "__sys_accept4", "__x64_sys_accept4", "__x64_sys_accept", "__arm64_sys_accept4"}

// acceptCalls are what a C library calls it.
var acceptCalls = []string{"accept", "accept4", "__libc_accept", "__libc_accept4"}

// parkedFrames are where the Go runtime keeps threads that it has no work for.
var parkedFrames = []string{"runtime.stopm", "runtime.mPark", "runtime.sysmon", "runtime.templateThread"}

// subject is a listener whose accept queue overflowed, or was left alone, with what its threads did meanwhile worked out.
type subject struct {
	*Listener
	e      *Evidence
	drops  uint64 // by its accept queue
	whatIf *event.WhatIf
	suspects
	// pressed are the steps in which the queue was full or dropped.
	pressed    []bool
	standing   []bool // steps in which connections waited and none was accepted
	pressedMs  float64
	did        [numDoings]int // steps under pressure, by what the threads did then
	judged     int            // of them, those with a known answer
	stallMs    float64        // the longest standstill that has drops in it
	stallDrops uint64         // drops in standstills
	seenDrops  uint64         // drops in the timeline
}

func newSubject(e *Evidence, l *Listener) *subject {
	s := &subject{Listener: l, e: e, drops: l.dropped(event.CauseAcceptQueueFull), whatIf: whatIf(e, l)}
	s.pressed = make([]bool, len(l.Timeline))
	for i, p := range l.Timeline {
		full := p.AcceptQueue != nil && p.AcceptQueue.Len > p.AcceptQueue.Limit
		if s.pressed[i] = full || s.drops > 0 && value(p.Drops) > 0; s.pressed[i] {
			s.pressedMs += float64(l.StepMs)
		}
		s.seenDrops += value(p.Drops)
	}
	s.standing = make([]bool, len(l.Timeline))
	for _, st := range stalls(l) {
		var drops uint64
		for i := st.from; i < st.to; i++ {
			drops += value(l.Timeline[i].Drops)
			s.standing[i] = true
			// What was full stays full while nothing is accepted, read or not.
			if l.Timeline[i].AcceptQueue == nil && s.pressed[i-1] && !s.pressed[i] {
				s.pressed[i] = true
				s.pressedMs += float64(l.StepMs)
			}
		}
		// Where nothing was dropped, what presses is that connections wait.
		waited := s.drops == 0 && float64(st.to-st.from)*float64(l.StepMs) >= longWaitMs
		for i := st.from; waited && i < st.to; i++ {
			if !s.pressed[i] {
				s.pressed[i] = true
				s.pressedMs += float64(l.StepMs)
			}
		}
		if drops > 0 || waited {
			s.stallMs = max(s.stallMs, float64(st.to-st.from)*float64(l.StepMs))
		}
		s.stallDrops += drops
	}
	s.stallMs = e.within(s.stallMs)
	s.suspects = suspectsOf(l)
	s.judge()
	return s
}

// judge goes through the steps under pressure.
func (s *subject) judge() {
	if s.StepMs == 0 {
		return
	}
	steps := make([]map[uint64][numDoings]int, len(s.pressed))
	s.eachSample(func(t Thread, smp Sample, did doing) {
		if !s.underPressure(smp) {
			return
		}
		i := smp.OffsetMs / s.StepMs
		if steps[i] == nil {
			steps[i] = make(map[uint64][numDoings]int)
		}
		tally := steps[i][t.key()]
		tally[did]++
		steps[i][t.key()] = tally
	})
	for i, threads := range steps {
		did := together(threads)
		if s.shared {
			did = s.sharedDoing(i, did)
		}
		if did == doingUnknown {
			continue
		}
		s.did[did]++
		s.judged++
	}
}

// sharedDoing is what threads did in a step that pass their work to each other: that one of them waits says nothing,
// and of what one sleeps in nothing is known to be the acceptor's.
func (s *subject) sharedDoing(step int, did doing) doing {
	var ran, delayed, most float64
	for _, t := range s.threads {
		before := uint32(0)
		for _, smp := range t.Samples {
			if int(smp.OffsetMs/s.StepMs) == step && !smp.Calm {
				ran, delayed = ran+value(smp.RunMs), delayed+value(smp.DelayMs)
				most = max(most, float64(smp.OffsetMs-min(before, smp.OffsetMs)))
			}
			before = smp.OffsetMs
		}
	}
	switch {
	case most > 0 && ran >= most/2:
		return doingBusy
	case most > 0 && delayed >= most/2:
		return doingStarved
	case did == doingStopped:
		return did
	}
	return doingUnknown
}

// idle tells whether most of the time under pressure some thread waited in poll and none of these processes ran, or
// wanted to: what one thread does says nothing while another may be the one that accepts.
func (s *subject) idle() bool {
	if !s.mainly(doingWaiting) {
		return false
	}
	busy := make(map[int]bool)
	for _, t := range s.Threads {
		before, first := uint32(0), true
		for _, smp := range t.Samples {
			switch did := classify(smp, smp.OffsetMs-min(before, smp.OffsetMs), first); did {
			case doingBusy, doingStarved, doingStopped, doingUnknown:
				if s.underPressure(smp) && (did != doingUnknown || smp.State == "R") {
					busy[int(smp.OffsetMs/max(s.StepMs, 1))] = true
				}
			}
			before, first = smp.OffsetMs, false
		}
	}
	return float64(len(busy)) < (1-mostly)/2*float64(s.judged)
}

// eachSample goes through the samples of the threads whose business accepting is, and says what each shows.
func (s *subject) eachSample(do func(Thread, Sample, doing)) {
	for _, t := range s.threads {
		before, first := uint32(0), true
		for _, smp := range t.Samples {
			did := classify(smp, smp.OffsetMs-min(before, smp.OffsetMs), first)
			if did == doingWaiting && s.ignores(smp) {
				did = doingBlocked
			}
			do(t, smp, did)
			before, first = smp.OffsetMs, false
		}
	}
}

// levelCalls end at once where one of their descriptors is ready; epoll's may be told only once.
var levelCalls = []string{"poll", "ppoll", "select", "pselect6", "_newselect"}

// ignores tells whether the thread sleeps in a call that a connection in the queue would end if the listener were among what it
// waits for: connections waited, and none was accepted in this step and the one before.
func (s *subject) ignores(smp Sample) bool {
	i := int(smp.OffsetMs / max(s.StepMs, 1))
	if !s.known || s.shared || !slices.Contains(levelCalls, smp.Syscall) || i < 1 || i >= len(s.Timeline) {
		return false
	}
	for _, p := range s.Timeline[i-1 : i+1] {
		if p.Accepts == nil || *p.Accepts > 0 || p.AcceptQueue == nil || p.AcceptQueue.Len == 0 {
			return false
		}
	}
	return value(s.Accepts) > 0 // else it is no_acceptor's
}

// unlookedMs is how much of the time under pressure had passed before threads were looked at closely: of that nothing is concluded.
func (s *subject) unlookedMs() (ms float64) {
	if s.e.Closely == nil {
		return 0
	}
	for i, pressed := range s.pressed {
		from, to := uint32(i)*s.StepMs, uint32(i+1)*s.StepMs
		if pressed && !slices.ContainsFunc(s.e.Closely, func(c Span) bool { return c.FromMs < to && from < c.ToMs }) {
			ms += float64(s.StepMs)
		}
	}
	return ms
}

// underPressure tells whether the queue was full, or dropped, when the sample was taken.
func (s *subject) underPressure(smp Sample) bool {
	i := int(smp.OffsetMs / max(s.StepMs, 1))
	return i < len(s.pressed) && s.pressed[i]
}

func (t Thread) key() uint64 { return uint64(t.PID)<<32 | uint64(t.TID) }

// classify says what a sample shows; since is how long ago the thread's sample before was.
func classify(smp Sample, since uint32, first bool) doing {
	half := float64(since) / 2
	known := !first && since > 0 && !smp.Calm
	switch {
	case smp.Frozen || smp.State == "T" || smp.State == "t":
		return doingStopped
	case known && smp.DelayMs != nil && *smp.DelayMs >= half:
		return doingStarved
	case known && smp.RunMs != nil && *smp.RunMs < half && smp.State == "R":
		return doingUnknown // at this moment, and seldom
	case smp.inAccept():
		return doingAccepting
	case smp.OnCPU, known && smp.RunMs != nil && *smp.RunMs >= half:
		return doingBusy
	case smp.State != "S" && smp.State != "D":
		return doingUnknown
	case slices.Contains(waitCalls, smp.Syscall) || has(smp.Kernel, waitFrames):
		return doingWaiting
	case has(smp.User, parkedFrames):
		return doingParked
	case smp.Syscall != "" || len(smp.Kernel) > 0:
		return doingBlocked
	}
	return doingUnknown
}

// inAccept tells whether the thread was seen on a CPU in accept().
func (smp Sample) inAccept() bool {
	return smp.OnCPU && (has(smp.Kernel, acceptFrames) || has(bound(smp.User, 1), acceptCalls))
}

// has tells whether a stack has one of the functions in it, whatever follows their names (+0x1f).
func has(stack, functions []string) bool {
	return slices.ContainsFunc(stack, func(frame string) bool {
		name, _, _ := strings.Cut(frame, "+")
		return slices.Contains(functions, name)
	})
}

// together says what all threads of a step amount to. One that is ready to accept, or is on its way to a
// CPU, is what matters; only if none is, the majority of those that can't.
func together(threads map[uint64][numDoings]int) doing {
	var n [numDoings]int
	for _, tally := range threads {
		most := doingUnknown
		for did := range numDoings {
			if tally[did] > tally[most] {
				most = did
			}
		}
		// A thread that waited for a CPU most of a step may have been on one for a sample of it.
		if tally[doingStarved] > 0 {
			most = doingStarved
		}
		n[most]++
	}
	for _, did := range []doing{doingWaiting, doingStarved, doingAccepting, doingBusy} {
		if n[did] > 0 {
			return did
		}
	}
	switch {
	case n[doingStopped] > 0 && n[doingStopped] >= n[doingBlocked]:
		return doingStopped
	case n[doingBlocked] > 0:
		return doingBlocked
	}
	return doingUnknown
}

// share is the part of the judged time under pressure that the threads spent so.
func (s *subject) share(did ...doing) float64 {
	if s.judged == 0 {
		return 0
	}
	n := 0
	for _, d := range did {
		n += s.did[d]
	}
	return float64(n) / float64(s.judged)
}

const (
	// fewSteps are too few to say what threads did.
	fewSteps = 3
	// standingMs is how long a loop must stand still, sustainedMs how long a queue must be full in all,
	// for what the threads did then to be more than the ordinary course of a burst.
	standingMs  = 200
	sustainedMs = 1000
	// mostly is the share of the time, or of the drops, that makes something the cause.
	mostly = 0.5
)

// mainly tells whether the threads did this for most of the time under pressure.
func (s *subject) mainly(did ...doing) bool {
	return s.judged >= fewSteps && s.share(did...) >= mostly
}

// lasting tells whether the pressure is more than a burst: the loop stood still, or the queue was full for long without
// arrivals that jumped.
func (s *subject) lasting() bool {
	return s.stallMs >= standingMs || s.pressedMs >= sustainedMs && !s.jump().short
}

// overlap is the part of the drops (where they are timed, else of the steps under pressure) in steps of which ok is true.
func (s *subject) overlap(ok func(event.TimelinePoint) bool) float64 {
	var in, all float64
	for i, p := range s.Timeline {
		if !s.pressed[i] {
			continue
		}
		weight := 1.0
		if s.seenDrops > 0 {
			weight = float64(value(p.Drops))
		}
		all += weight
		if ok(p) {
			in += weight
		}
	}
	if all == 0 {
		return 0
	}
	return in / all
}

// jump is how arrivals went by the second; nothing where that is not known, or the window has too few of them to tell what
// is usual. What came before the window nobody counted by listener: the kernel's own counters are of a whole namespace, and
// of a time that began nobody knows when.
type jump struct {
	short bool // far above the usual, in few seconds
	peak  float64
	usual float64
}

const (
	jumpFactor = 5
	fewest     = 20 // arrivals that are called a burst at all
)

func (s *subject) jump() jump {
	bins := s.perSecond()
	if len(bins) < 3 {
		return jump{}
	}
	peak := 0
	var rates []float64
	for i, b := range bins {
		rates = append(rates, b.arrivals)
		if b.arrivals > bins[peak].arrivals {
			peak = i
		}
	}
	slices.Sort(rates)
	out := jump{peak: bins[peak].arrivals, usual: rates[len(rates)/2]}
	high := 0
	// Those dropped come again for some ten seconds.
	var after, all float64
	for i, b := range bins {
		if b.arrivals >= out.peak/2 {
			high++
		}
		all += b.drops
		if i >= peak-1 && i <= peak+12 {
			after += b.drops
		}
	}
	out.short = out.peak >= jumpFactor*max(out.usual, 1) && out.peak >= fewest &&
		high <= max(2, len(bins)/5) && after >= mostly*all
	return out
}

// second is what a second of the timeline came to; arrivals are those not known to come again.
type second struct {
	arrivals, accepts, drops float64
	pressed                  bool
}

// perSecond is nothing where arrivals were not counted.
func (s *subject) perSecond() []second {
	var out []second
	fresh := begun(s.Timeline)
	for i, p := range s.Timeline {
		if p.Arrivals == nil || s.StepMs == 0 {
			return nil
		}
		at := i * int(min(s.StepMs, 1000)) / 1000
		if at == len(out) {
			out = append(out, second{})
		}
		out[at].arrivals += float64(fresh[i])
		out[at].accepts += float64(value(p.Accepts))
		out[at].drops += float64(value(p.Drops))
		out[at].pressed = out[at].pressed || s.pressed[i]
	}
	return out
}
