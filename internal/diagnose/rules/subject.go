// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/whatif"
	"github.com/synspy/synspy/internal/event"
)

// Doing is what the accepting threads did at a moment.
type Doing uint8

const (
	DoingUnknown   Doing = iota
	doingWaiting         // in accept or poll: ready to accept
	doingAccepting       // on a CPU, in accept
	doingBusy            // on a CPU, elsewhere
	DoingStarved         // ready to run, without a CPU
	doingStopped         // stopped, traced or frozen
	doingBlocked         // asleep in something else
	doingParked          // a thread that the language's runtime holds in reserve
	numDoing
)

// waitCalls are the system calls in which a thread that accepts waits for connections.
var waitCalls = []string{"accept", "accept4", "poll", "ppoll", "select", "pselect6", "_newselect",
	"epoll_wait", "epoll_pwait",
	"epoll_pwait2", "io_uring_enter"}

// waitFrames are kernel functions that tell the same where the call's name does not
// (restart_syscall).
var waitFrames = []string{"inet_csk_accept", "inet_csk_wait_for_connect", "ep_poll", "do_sys_poll",
	"do_poll", "do_select", "io_cqring_wait"}

// parkedFrames are where the Go runtime keeps threads that it has no work for.
var parkedFrames = []string{"runtime.stopm", "runtime.mPark", "runtime.sysmon",
	"runtime.templateThread"}

// Subject is a listener whose accept queue overflowed, or was left alone, with what its threads did
// meanwhile worked out.
type Subject struct {
	*evidence.Listener
	e      *evidence.Evidence
	drops  uint64 // by its accept queue
	WhatIf *event.WhatIf
	suspects
	// pressed are the steps in which the queue was full or dropped.
	pressed    []bool
	standing   []bool // steps in which connections waited and none was accepted
	PressedMs  float64
	Did        [numDoing]int // steps under pressure, by what the threads did then
	judged     int           // of them, those with a known answer
	StallMs    float64       // the longest standstill that has drops in it
	stallDrops uint64        // drops in standstills
	seenDrops  uint64        // drops in the timeline
}

// NewSubject prepares what the rules ask of one listener.
func NewSubject(e *evidence.Evidence, l *evidence.Listener) *Subject {
	s := &Subject{Listener: l, e: e, drops: l.Dropped(event.CauseAcceptQueueFull),
		WhatIf: whatif.WhatIf(e, l)}
	s.pressed = make([]bool, len(l.Timeline))
	for i, p := range l.Timeline {
		full := p.AcceptQueue != nil && p.AcceptQueue.Len > p.AcceptQueue.Limit
		if s.pressed[i] = full || s.drops > 0 && evidence.Value(p.Drops) > 0; s.pressed[i] {
			s.PressedMs += float64(l.StepMs)
		}
		s.seenDrops += evidence.Value(p.Drops)
	}
	s.standing = make([]bool, len(l.Timeline))
	for _, st := range whatif.Stalls(l) {
		var drops uint64
		for i := st.From; i < st.To; i++ {
			drops += evidence.Value(l.Timeline[i].Drops)
			s.standing[i] = true
			// What was full stays full while nothing is accepted, read or not.
			if l.Timeline[i].AcceptQueue == nil && s.pressed[i-1] && !s.pressed[i] {
				s.pressed[i] = true
				s.PressedMs += float64(l.StepMs)
			}
		}
		// Where nothing was dropped, what presses is that connections wait.
		waited := s.drops == 0 &&
			float64(st.To-st.From)*float64(l.StepMs) >= whatif.LongWaitMs
		for i := st.From; waited && i < st.To; i++ {
			if !s.pressed[i] {
				s.pressed[i] = true
				s.PressedMs += float64(l.StepMs)
			}
		}
		if drops > 0 || waited {
			s.StallMs = max(s.StallMs, float64(st.To-st.From)*float64(l.StepMs))
		}
		s.stallDrops += drops
	}
	s.StallMs = e.Within(s.StallMs)
	s.suspects = suspectsOf(l)
	s.judge()
	return s
}

// judge goes through the steps under pressure.
func (s *Subject) judge() {
	if s.StepMs == 0 {
		return
	}
	steps := make([]map[uint64][numDoing]int, len(s.pressed))
	s.EachSample(func(t evidence.Thread, smp evidence.Sample, did Doing) {
		if !s.UnderPressure(smp) {
			return
		}
		i := smp.OffsetMs / s.StepMs
		if steps[i] == nil {
			steps[i] = make(map[uint64][numDoing]int)
		}
		tally := steps[i][t.Key()]
		tally[did]++
		steps[i][t.Key()] = tally
	})
	for i, threads := range steps {
		did := together(threads)
		if s.shared {
			did = s.sharedDoing(i, did)
		}
		if did == DoingUnknown {
			continue
		}
		s.Did[did]++
		s.judged++
	}
}

// sharedDoing is what threads did in a step that pass their work to each other: that one of them
// waits says nothing, and of what one sleeps in nothing is known to be the acceptor's.
func (s *Subject) sharedDoing(step int, did Doing) Doing {
	var ran, delayed, most float64
	for _, t := range s.threads {
		before := uint32(0)
		for _, smp := range t.Samples {
			if int(smp.OffsetMs/s.StepMs) == step && !smp.Calm {
				ran, delayed = ran+evidence.Value(smp.RunMs),
					delayed+evidence.Value(smp.DelayMs)
				most = max(most, float64(smp.OffsetMs-min(before, smp.OffsetMs)))
			}
			before = smp.OffsetMs
		}
	}
	switch {
	case most > 0 && ran >= most/2:
		return doingBusy
	case most > 0 && delayed >= most/2:
		return DoingStarved
	case did == doingStopped:
		return did
	}
	return DoingUnknown
}

// idle reports whether most of the time under pressure some thread waited in poll and none of these
// processes ran, or wanted to: what one thread does says nothing while another may be the one that
// accepts.
func (s *Subject) idle() bool {
	if !s.mainly(doingWaiting) {
		return false
	}
	busy := make(map[int]bool)
	for _, t := range s.Threads {
		before, first := uint32(0), true
		for _, smp := range t.Samples {
			switch did := classify(smp, smp.OffsetMs-min(before, smp.OffsetMs),
				first); did {
			case doingBusy, DoingStarved, doingStopped, DoingUnknown:
				if s.UnderPressure(smp) && (did != DoingUnknown ||
					smp.State == "R") {
					busy[int(smp.OffsetMs/max(s.StepMs, 1))] = true
				}
			}
			before, first = smp.OffsetMs, false
		}
	}
	return float64(len(busy)) < (1-mostly)/2*float64(s.judged)
}

// EachSample goes through the samples of the threads whose business accepting is, and says what
// each shows.
func (s *Subject) EachSample(do func(evidence.Thread, evidence.Sample, Doing)) {
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

// ignores reports whether the thread sleeps in a call that a connection in the queue would end if
// the listener were among what it waits for: connections waited, and none was accepted in this step
// and the one before.
func (s *Subject) ignores(smp evidence.Sample) bool {
	i := int(smp.OffsetMs / max(s.StepMs, 1))
	if !s.known || s.shared || !slices.Contains(levelCalls, smp.Syscall) || i < 1 ||
		i >= len(s.Timeline) {
		return false
	}
	for _, p := range s.Timeline[i-1 : i+1] {
		if p.Accepts == nil || *p.Accepts > 0 || p.AcceptQueue == nil ||
			p.AcceptQueue.Len == 0 {
			return false
		}
	}
	return evidence.Value(s.Accepts) > 0 // else it is no_acceptor's
}

// unsampledMs is how much of the time under pressure had passed before threads were looked at
// closely: of that nothing is concluded.
func (s *Subject) unsampledMs() (ms float64) {
	if s.e.Closely == nil {
		return 0
	}
	for i, pressed := range s.pressed {
		from, to := uint32(i)*s.StepMs, uint32(i+1)*s.StepMs
		if pressed && !slices.ContainsFunc(s.e.Closely,
			func(c evidence.Span) bool { return c.FromMs < to && from < c.ToMs }) {
			ms += float64(s.StepMs)
		}
	}
	return ms
}

// UnderPressure reports whether the queue was full, or dropped, when the sample was taken.
func (s *Subject) UnderPressure(smp evidence.Sample) bool {
	i := int(smp.OffsetMs / max(s.StepMs, 1))
	return i < len(s.pressed) && s.pressed[i]
}

// classify says what a sample shows; since is how long ago the thread's sample before was.
func classify(smp evidence.Sample, since uint32, first bool) Doing {
	half := float64(since) / 2
	known := !first && since > 0 && !smp.Calm
	switch {
	case smp.Frozen || smp.State == "T" || smp.State == "t":
		return doingStopped
	case known && smp.DelayMs != nil && *smp.DelayMs >= half:
		return DoingStarved
	case known && smp.RunMs != nil && *smp.RunMs < half && smp.State == "R":
		return DoingUnknown // at this moment, and seldom
	case smp.InAccept():
		return doingAccepting
	case smp.OnCPU, known && smp.RunMs != nil && *smp.RunMs >= half:
		return doingBusy
	case smp.State != "S" && smp.State != "D":
		return DoingUnknown
	case slices.Contains(waitCalls, smp.Syscall) || evidence.Has(smp.Kernel, waitFrames):
		return doingWaiting
	case evidence.Has(smp.User, parkedFrames):
		return doingParked
	case smp.Syscall != "" || len(smp.Kernel) > 0:
		return doingBlocked
	}
	return DoingUnknown
}

// together says what all threads of a step amount to. One that is ready to accept, or is on its way
// to a CPU, is what matters; only if none is, the majority of those that can't.
func together(threads map[uint64][numDoing]int) Doing {
	var n [numDoing]int
	for _, tally := range threads {
		most := DoingUnknown
		for did := range numDoing {
			if tally[did] > tally[most] {
				most = did
			}
		}
		// A thread that waited for a CPU most of a step may have been on one for a sample
		// of it.
		if tally[DoingStarved] > 0 {
			most = DoingStarved
		}
		n[most]++
	}
	for _, did := range []Doing{doingWaiting, DoingStarved, doingAccepting, doingBusy} {
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
	return DoingUnknown
}

// share is the part of the judged time under pressure that the threads spent so.
func (s *Subject) share(did ...Doing) float64 {
	if s.judged == 0 {
		return 0
	}
	n := 0
	for _, d := range did {
		n += s.Did[d]
	}
	return float64(n) / float64(s.judged)
}

const (
	// fewSteps are too few to say what threads did.
	fewSteps = 3
	// standingMs is how long a loop must stand still, sustainedMs how long a queue must be full
	// in all, for what the threads did then to be more than the ordinary course of a burst.
	standingMs  = 200
	sustainedMs = 1000
	// mostly is the share of the time, or of the drops, that makes something the cause.
	mostly = 0.5
)

// mainly reports whether the threads did this for most of the time under pressure.
func (s *Subject) mainly(did ...Doing) bool {
	return s.judged >= fewSteps && s.share(did...) >= mostly
}

// lasting reports whether the pressure is more than a burst: the loop stood still, or the queue was
// full for long without arrivals that jumped.
func (s *Subject) lasting() bool {
	return s.StallMs >= standingMs || s.PressedMs >= sustainedMs && !s.jump().short
}

// overlap is the part of the drops (where they are timed, else of the steps under pressure) in
// steps of which ok is true.
func (s *Subject) overlap(ok func(event.TimelinePoint) bool) float64 {
	var in, all float64
	for i, p := range s.Timeline {
		if !s.pressed[i] {
			continue
		}
		weight := 1.0
		if s.seenDrops > 0 {
			weight = float64(evidence.Value(p.Drops))
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

// jump is how arrivals went by the second; nothing where that is not known, or the window has too
// few of them to tell what is usual. What came before the window nobody counted by listener: the
// kernel's own counters are of a whole namespace, and of a time that began nobody knows when.
type jump struct {
	short bool // far above the usual, in few seconds
	peak  float64
	usual float64
}

const (
	jumpFactor = 5
	fewest     = 20 // arrivals that are called a burst at all
)

func (s *Subject) jump() jump {
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
func (s *Subject) perSecond() []second {
	var out []second
	fresh := whatif.Begun(s.Timeline)
	for i, p := range s.Timeline {
		if p.Arrivals == nil || s.StepMs == 0 {
			return nil
		}
		at := i * int(min(s.StepMs, 1000)) / 1000
		if at == len(out) {
			out = append(out, second{})
		}
		out[at].arrivals += float64(fresh[i])
		out[at].accepts += float64(evidence.Value(p.Accepts))
		out[at].drops += float64(evidence.Value(p.Drops))
		out[at].pressed = out[at].pressed || s.pressed[i]
	}
	return out
}

// actors names processes in a sentence.
func actors(processes []event.Process) string {
	switch len(processes) {
	case 0:
		return "the server"
	case 1:
		return advice.Who(processes[0])
	}
	return fmt.Sprintf("%s and %d more", advice.Who(processes[0]), len(processes)-1)
}

func pids(processes []event.Process) string {
	if len(processes) == 0 {
		return "PID"
	}
	var out []string
	for _, p := range processes {
		out = append(out, fmt.Sprint(p.PID))
	}
	return strings.Join(out, " ")
}
