// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/whatif"
	"github.com/synspy/synspy/internal/event"
)

func processStopped(s *Subject) *Found {
	if s.judged < fewSteps || s.share(doingStopped) < mostly {
		return nil
	}
	f := newFound(event.FindingProcessStopped, s.drops)
	who, state, frozen := map[uint32]bool{}, "", false
	s.EachSample(func(t evidence.Thread, smp evidence.Sample, did Doing) {
		if did == doingStopped && s.UnderPressure(smp) {
			who[t.PID] = true
			frozen = frozen || smp.Frozen
			if !smp.Frozen {
				state = smp.State
			}
		}
	})
	f.about(s.Listener, s.named(who))
	s.cite(f)
	f.saw("time under pressure in which the accepting threads were stopped",
		advice.Percent(s.share(doingStopped), 1), "%")
	f.saw("processes stopped", len(who), "processes")
	switch {
	case frozen:
		f.saw("their cgroup was frozen",
			or(strings.Join(evidence.Bound(s.Frozen, MaxProcesses), ", "),
				"its threads slept in the freezer"), "")
		f.Because = f.actors() + " was frozen with its cgroup"
		f.fix("thaw it: "+s.thaw(),
			"find out what froze it: docker pause, systemctl freeze, a snapshot, a node agent")
	case state == "t":
		f.saw("thread state", "t (traced)", "")
		f.Because = f.actors() + " was held by a debugger"
		f.fix("detach the debugger or tracer that holds it (TracerPid in /proc/PID/status)")
	default:
		f.saw("thread state", "T (stopped)", "")
		f.Because = f.actors() + " was stopped by a signal"
		f.fix("let it go on: kill -CONT " + pids(f.Processes))
		f.fix("find out who sent SIGSTOP or SIGTSTP: a terminal, a script, a checkpoint")
	}
	f.Title = f.Because
	f.Confidence = event.ConfidenceProven
	return f
}

// thaw says how, by the files of this host's version of cgroups where they are known.
func (s *Subject) thaw() string {
	ways := []string{"unpause the container"}
	for _, file := range evidence.Bound(s.FrozenBy, evidence.MaxPlaces) {
		to := "0"
		if path.Base(file) == "freezer.state" {
			to = "THAWED"
		}
		ways = append(ways, "echo "+to+" > "+evidence.Word(file))
	}
	if len(ways) == 1 {
		ways = append(ways,
			"write 0 to cgroup.freeze of the cgroup (version 2), THAWED to its freezer.state (version 1)")
	}
	return strings.Join(ways, ", or ")
}

func cpuThrottled(s *Subject) *Found {
	overlap := s.overlap(s.Throttled)
	var worst *evidence.CPU
	for i := range s.Cgroups {
		if c := &s.Cgroups[i]; c.Throttled > 0 && (worst == nil ||
			c.ThrottledMs > worst.ThrottledMs) {
			worst = c
		}
	}
	if overlap < mostly || worst == nil || worst.ThrottledMs < fewThrottled*s.PressedMs {
		return nil
	}
	f := newFound(event.FindingCPUThrottled, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	if s.drops > 0 {
		f.saw("drops while the cgroup was throttled", advice.Percent(overlap, 1), "%")
	}
	f.saw("periods in which the quota was used up", worst.Throttled, "periods")
	f.saw("periods", worst.Periods, "periods")
	f.saw("throttled time, over all CPUs", round(worst.ThrottledMs), "ms")
	f.saw("cgroup", evidence.Said(worst.Cgroup.Path), "")
	if worst.QuotaUs != nil && worst.PeriodUs != nil {
		f.saw("quota", *worst.QuotaUs, "µs")
		f.saw("period", *worst.PeriodUs, "µs")
	}
	f.Because = fmt.Sprintf("%s had used up its CPU quota: throttled in %d of %d periods",
		f.actors(), worst.Throttled, worst.Periods)
	f.Title = "the CPU quota stops " + f.actors()
	f.turn(advice.QuotaKnob(*worst, f.Processes,
		fmt.Sprintf("the quota was used up in %d of %d periods; "+
			"twice is the least to try, more while periods are still throttled", worst.Throttled, worst.Periods)))
	f.fix("or use no more busy threads than the quota has CPUs, so that it lasts for the period")
	f.Settles = "run again with a higher quota: the drops end with the throttling"
	return f
}

// fewThrottled is the part of the time under pressure that must have been throttled, or spent
// waiting for a CPU: a few milliseconds in every period touch every drop and cause none.
const fewThrottled = 0.3

func cpuStarved(s *Subject) *Found {
	if !s.mainly(DoingStarved) {
		return nil
	}
	var delay float64
	s.EachSample(func(_ evidence.Thread, smp evidence.Sample, _ Doing) {
		if s.UnderPressure(smp) && !smp.Calm {
			delay += evidence.Value(smp.DelayMs)
		}
	})
	if delay < fewThrottled*s.PressedMs {
		return nil
	}
	f := newFound(event.FindingCPUStarved, s.drops).about(s.Listener, s.looping())
	s.cite(f)
	f.saw("time under pressure in which the accepting threads waited for a CPU",
		advice.Percent(s.share(DoingStarved), 1), "%")
	f.saw("run delay of the accepting threads under pressure", round(delay), "ms")
	f.Confidence = s.sure(DoingStarved)
	if s.jump().short || !s.lasting() {
		f.Severity = event.SeverityContributing // to a burst
	}
	f.Because = fmt.Sprintf("%s was ready to run and got no CPU, for %s in all", f.actors(),
		advice.Seconds(delay))
	f.Title = f.actors() + " waits for a CPU"
	f.fix("take other load off these CPUs, or give the service more weight: cpu.weight (cpu.shares of version 1), CPUWeight= of the unit, resources.requests.cpu of the pod",
		"check which CPUs it may use: taskset -pc "+pids(f.Processes)+", and cpuset.cpus of its cgroup")
	f.Settles = "what ran on these CPUs meanwhile: perf sched, or the node's CPU pressure in /proc/pressure/cpu"
	return f
}

func acceptRateExceeded(s *Subject) *Found {
	if s.emptied() {
		return nil
	}
	seconds := s.perSecond()
	if _, enough := whatif.Helps(s.WhatIf); enough || s.Accepts == nil || *s.Accepts == 0 ||
		s.StallMs >= whatif.LongWaitMs || len(seconds) == 0 || !s.lasting() {
		return nil
	}
	var over, pressed int
	var came, accepted float64
	for _, sec := range seconds {
		if !sec.pressed {
			continue
		}
		pressed++
		came, accepted = came+sec.arrivals, accepted+sec.accepts
		if sec.arrivals > sec.accepts {
			over++
		}
	}
	// A queue that runs empty in between belongs to a server that is quick enough, and to
	// clients that come in bunches.
	if pressed < 3 || float64(over) < mostly*float64(pressed) || came <= accepted ||
		s.Busy() < mostly {
		return nil
	}
	came, accepted = round(came/float64(pressed)), round(accepted/float64(pressed))
	f := newFound(event.FindingAcceptRateExceeded, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("arrivals under pressure", came, "SYNs/s")
	f.saw("accepts under pressure", accepted, "connections/s")
	f.saw("seconds in which more arrived than were accepted", over, "s")
	f.Because = fmt.Sprintf("%s accepts %g connections/s and %g arrived", f.actors(), accepted,
		came)
	f.Title = "connections arrive faster than " + f.actors() + " accepts"
	if s.idle() {
		f.saw("time under pressure in which the accepting threads were idle in poll",
			advice.Percent(s.share(doingWaiting), 1), "%")
		f.Because += ", idle in poll meanwhile: it holds accepting back itself"
		f.fix("look at the server's connection limit (maxconn, worker_connections, a semaphore around accept): it is reached")
	}
	s.adviseAccepting(f)
	f.fix("let clients keep their connections open, so that fewer arrive")
	if s.judged < fewSteps {
		f.Settles = "samples of the accepting threads, which this input does not have: they say whether the loop computes or sleeps"
	}
	return f
}

// Busy is the part of the steps between the first under pressure and the last in which connections
// waited.
func (s *Subject) Busy() float64 {
	first := slices.Index(s.pressed, true)
	if first < 0 {
		return 0
	}
	last := first
	n := 0
	for i := first; i < len(s.pressed); i++ {
		if s.pressed[i] {
			last = i
		}
	}
	for i, p := range s.Timeline[first : last+1] {
		if whatif.Waiting(p) || s.standing[first+i] {
			n++
		}
	}
	return float64(n) / float64(last+1-first)
}

// emptied reports whether the accepting threads emptied the queue each time that it was full: they
// mainly slept in accept() even in the steps in which it was, or nothing was left in it a step
// later. Then what arrives is less than they can take.
func (s *Subject) emptied() bool {
	if s.stoodStill() {
		return false
	}
	call, _ := s.usual(doingWaiting)
	return s.mainly(doingWaiting) && (call == "accept" || call == "accept4") || s.drains()
}

// drains reports whether the queue was read to be empty soon after each step in which it was full
// or dropped.
func (s *Subject) drains() bool {
	last, drained := -1, true
	for i, p := range s.Timeline {
		switch {
		case s.pressed[i]:
			// A step later what came at its end may still be there.
			if last >= 0 && i-last > 2 && !drained {
				return false
			}
			last, drained = i, false
		case p.AcceptQueue != nil && p.AcceptQueue.Len == 0 && (last < 0 || i-last <= 2):
			drained = true
		}
	}
	return last >= 0 && drained
}

// Throttled reports whether a cgroup of the acceptors was throttled in a step.
func (s *Subject) Throttled(p event.TimelinePoint) bool {
	return p.Throttled || slices.ContainsFunc(s.Cgroups, func(c evidence.CPU) bool {
		return slices.ContainsFunc(c.Spans,
			func(sp evidence.Span) bool {
				return sp.FromMs < p.OffsetMs+s.StepMs &&
					p.OffsetMs < sp.ToMs
			})
	})
}

// cite adds what every finding about the queue rests on.
func (s *Subject) cite(f *Found) {
	if s.drops > 0 {
		f.saw("packets dropped by the full accept queue", s.drops, "packets")
	} else if q := s.ID.AcceptQueue; q != nil {
		f.saw("connections that waited in the queue at the end", q.Len, "connections")
	}
	sawKnown(f, "connections that got through on a later try", s.Late, "connections")
	if limit, ok := s.Limit(); ok {
		f.saw("accept queue limit", limit, "sockets")
	}
	if s.drops > 0 && s.PressedMs > 0 && s.StepMs <= 100 { // longer steps say too much
		f.saw("time in which the queue was full, or dropped packets", s.PressedMs, "ms")
	}
	if ms := s.unsampledMs(); ms > 0 && len(s.Threads) > 0 {
		f.saw("time under pressure before its threads were looked at closely", ms, "ms")
	}
	if s.StallMs > 0 {
		f.saw("longest time without an accept while connections waited", s.StallMs, "ms")
	} else {
		sawKnown(f, "longest time without an accept while connections waited",
			s.LongestGapMs, "ms")
	}
	sawKnown(f, "SYNs in the window", s.Syns, "SYNs")
}

func (s *Subject) citeStack(f *Found, call string, frames []string) {
	if call != "" {
		f.saw("call that they slept in", call, "")
	}
	if len(frames) > 0 {
		f.saw("stack, innermost first", strings.Join(Fitting(frames), " < "), "")
	}
}

// Fitting is as many whole frames as a report shows of a line from outside.
func Fitting(frames []string) []string {
	room := 230
	for i, frame := range evidence.Bound(frames, 12) {
		if room -= len(frame) + len(" < "); room < 0 && i > 0 {
			return frames[:i]
		}
	}
	return evidence.Bound(frames, 12)
}

// adviseAccepting says what the replay thinks of a quicker loop, of workers and of limits.
func (s *Subject) adviseAccepting(f *Found) {
	if s.WhatIf == nil {
		f.fix("then add workers, one for each CPU at most")
		return
	}
	present := s.WhatIf.Rows[0]
	for _, r := range s.WhatIf.Rows {
		// What does not halve the drops is no advice.
		if r.Present || r.Limit != present.Limit || r.Dropped*2 > present.Dropped {
			continue
		}
		drops := fmt.Sprintf("would have dropped %s where the replay of what was drops %s",
			advice.Many(r.Dropped, "packet"), evidence.Thousands(present.Dropped))
		if present.Dropped != s.WhatIf.Observed {
			drops += fmt.Sprintf(", and %s seen to be",
				advice.ThousandsWere(s.WhatIf.Observed))
		}
		if r.Workers > 1 {
			f.fix(fmt.Sprintf("%g times the workers %s", r.Workers, drops))
			if r.Dropped == 0 {
				break
			}
		} else if r.AcceptMs < present.AcceptMs {
			f.fix(fmt.Sprintf("a loop that never stands still for more than %s %s",
				advice.Seconds(r.AcceptMs), drops))
		}
	}
	s.sayReplay(f)
}

// sayReplay says what the replay thinks of limits: a fix where one would do, and evidence where
// none is.
func (s *Subject) sayReplay(f *Found) {
	if s.WhatIf.Limit != nil {
		f.fix(s.WhatIf.Says)
		return
	}
	f.saw("what a larger limit would do", s.WhatIf.Says, "")
}

// looping are the processes of the threads that are known to accept, or else those that are said
// to.
func (s *Subject) looping() []event.Process {
	if s.known {
		pids := map[uint32]bool{}
		for _, t := range s.threads {
			pids[t.PID] = true
		}
		if list := s.named(pids); len(list) > 0 {
			return list
		}
	}
	return s.accepting()
}

// accepting are the processes with the highest role.
func (s *Subject) accepting() []event.Process {
	for _, role := range []event.Role{event.RoleAcceptor, event.RoleListener} {
		var out []event.Process
		for _, p := range s.Processes {
			if p.Role == role {
				out = append(out, p)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return s.Processes
}

func (s *Subject) named(pids map[uint32]bool) []event.Process {
	var out []event.Process
	for _, p := range s.Processes {
		if pids[p.PID] {
			out = append(out, p)
		}
	}
	return out
}

// attach is the option by which tracers are told whose threads to follow.
func attach(processes []event.Process) string {
	if len(processes) == 0 {
		return "-p PID"
	}
	var out []string
	for _, p := range evidence.Bound(processes, evidence.MaxPlaces) {
		out = append(out, fmt.Sprintf("-p %d", p.PID))
	}
	return strings.Join(out, " ")
}

// attachOne is [attach] for those that follow one process alone.
func attachOne(processes []event.Process) string { return attach(evidence.Bound(processes, 1)) }

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func round(v float64) float64 { return float64(int(v*10+0.5)) / 10 }
