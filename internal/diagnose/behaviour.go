package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// A full accept queue is explained by what its threads did. The first of these that the evidence shows is the
// cause, and no other of them is told: a stopped process also "does not accept", and a throttled one also "waits for a CPU".
var behaviours = []func(*subject) *found{
	processStopped,
	cpuThrottled,
	cpuStarved,
	acceptLoopBlocked,
	acceptLoopBusy,
	acceptsElsewhere,
	noAcceptor,
	acceptRateExceeded,
}

func processStopped(s *subject) *found {
	if s.judged < fewSteps || s.share(doingStopped) < mostly {
		return nil
	}
	f := newFound(event.FindingProcessStopped, s.drops)
	who, state, frozen := map[uint32]bool{}, "", false
	s.eachSample(func(t Thread, smp Sample, did doing) {
		if did == doingStopped && s.underPressure(smp) {
			who[t.PID] = true
			frozen = frozen || smp.Frozen
			if !smp.Frozen {
				state = smp.State
			}
		}
	})
	f.about(s.Listener, s.named(who))
	s.cite(f)
	f.saw("time under pressure in which the accepting threads were stopped", percent(s.share(doingStopped), 1), "%")
	f.saw("processes stopped", len(who), "processes")
	switch {
	case frozen:
		f.saw("their cgroup was frozen", true, "")
		f.because = actors(f.Processes) + " was frozen with its cgroup"
		f.fix("thaw it: write 0 to the cgroup's cgroup.freeze, or unpause the container", "find out what froze it: docker pause, a snapshot, a node agent")
	case state == "t":
		f.saw("thread state", "t (traced)", "")
		f.because = actors(f.Processes) + " was held by a debugger"
		f.fix("detach the debugger or tracer that holds it (TracerPid in /proc/PID/status)")
	default:
		f.saw("thread state", "T (stopped)", "")
		f.because = actors(f.Processes) + " was stopped by a signal"
		f.fix("let it go on: kill -CONT " + pids(f.Processes))
		f.fix("find out who sent SIGSTOP or SIGTSTP: a terminal, a script, a checkpoint")
	}
	f.Title = f.because
	f.Confidence = event.ConfidenceProven
	return f
}

func cpuThrottled(s *subject) *found {
	overlap := s.overlap(s.throttled)
	var worst *CPU
	for i := range s.Cgroups {
		if c := &s.Cgroups[i]; c.Throttled > 0 && (worst == nil || c.ThrottledMs > worst.ThrottledMs) {
			worst = c
		}
	}
	if overlap < mostly || worst == nil || worst.ThrottledMs < fewThrottled*s.pressedMs {
		return nil
	}
	f := newFound(event.FindingCPUThrottled, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("drops while the cgroup was throttled", percent(overlap, 1), "%")
	f.saw("periods in which the quota was used up", worst.Throttled, "periods")
	f.saw("periods", worst.Periods, "periods")
	f.saw("throttled time, over all CPUs", round(worst.ThrottledMs), "ms")
	f.saw("cgroup", worst.Cgroup.Path, "")
	if worst.QuotaUs != nil && worst.PeriodUs != nil {
		f.saw("quota", *worst.QuotaUs, "µs")
		f.saw("period", *worst.PeriodUs, "µs")
	}
	f.because = fmt.Sprintf("%s had used up its CPU quota: throttled in %d of %d periods", actors(f.Processes), worst.Throttled, worst.Periods)
	f.Title = "the CPU quota stops " + actors(f.Processes)
	f.turn(quotaKnob(*worst, f.Processes, fmt.Sprintf("the quota was used up in %d of %d periods", worst.Throttled, worst.Periods)))
	f.fix("or use no more busy threads than the quota has CPUs, so that it lasts for the period")
	f.Settles = "run again with a higher quota: the drops end with the throttling"
	return f
}

// fewThrottled is the part of the time under pressure that must have been throttled, or spent waiting for a CPU: a few milliseconds in every period touch
// every drop and cause none.
const fewThrottled = 0.3

func cpuStarved(s *subject) *found {
	if !s.mainly(doingStarved) {
		return nil
	}
	var delay float64
	s.eachSample(func(_ Thread, smp Sample, _ doing) {
		if s.underPressure(smp) {
			delay += value(smp.DelayMs)
		}
	})
	if delay < fewThrottled*s.pressedMs {
		return nil
	}
	f := newFound(event.FindingCPUStarved, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("time under pressure in which the accepting threads waited for a CPU", percent(s.share(doingStarved), 1), "%")
	f.saw("run delay of the accepting threads under pressure", round(delay), "ms")
	f.Confidence = s.sure(doingStarved)
	if s.jump().short || !s.lasting() {
		f.Severity = event.SeverityContributing // to a burst
	}
	f.because = fmt.Sprintf("%s was ready to run and got no CPU, for %s in all", actors(f.Processes), seconds(delay))
	f.Title = actors(f.Processes) + " waits for a CPU"
	f.fix("take other load off these CPUs, or give the service more weight: cpu.weight, CPUWeight= of the unit, resources.requests.cpu of the pod",
		"check which CPUs it may use: taskset -pc "+pids(f.Processes)+", and cpuset.cpus of its cgroup")
	f.Settles = "what ran on these CPUs meanwhile: perf sched, or the node's CPU pressure in /proc/pressure/cpu"
	return f
}

func acceptLoopBlocked(s *subject) *found {
	if !s.known || s.stallMs < standingMs && s.pressedMs < sustainedMs || !s.mainly(doingBlocked) {
		return nil
	}
	f := newFound(event.FindingAcceptLoopBlocked, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	call, frames := s.usual(doingBlocked)
	f.saw("time under pressure in which the accepting threads slept elsewhere", percent(s.share(doingBlocked), 1), "%")
	s.citeStack(f, call, frames)
	f.Confidence = s.sure(doingBlocked)
	if !s.lasting() {
		f.Severity = event.SeverityContributing // to a burst
	}
	in := or(call, "another call")
	if from := s.place(doingBlocked, call); from != "" {
		in += ", called from " + from + ","
	}
	f.because = fmt.Sprintf("%s slept in %s instead of accepting", actors(f.Processes), in)
	if s.stallMs >= standingMs {
		f.because += fmt.Sprintf(" (for up to %s)", seconds(s.stallMs))
	}
	f.Title = fmt.Sprintf("the accept loop of %s is blocked in %s", actors(f.Processes), or(call, "another call"))
	f.fix(fmt.Sprintf("take %s off the accepting thread: hand the connection on at once, or set a timeout on the call", or(call, "the blocking call")))
	s.adviseAccepting(f)
	if slices.Contains(levelCalls, call) {
		f.fix("or look at the server's connection limit, if it leaves connections alone until others end")
		f.Settles = "which descriptors it waits for: strace -p PID shows them, and the listener is not among them"
	} else if len(frames) == 0 {
		f.Settles = "a stack of the thread while it sleeps says which code it is: gdb -p PID, py-spy dump, jstack"
	}
	return f
}

func acceptLoopBusy(s *subject) *found {
	if !s.known || s.stallMs < standingMs && s.pressedMs < sustainedMs || !s.mainly(doingBusy) {
		return nil
	}
	f := newFound(event.FindingAcceptLoopBusy, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	_, frames := s.usual(doingBusy)
	f.saw("time under pressure in which the accepting threads computed", percent(s.share(doingBusy), 1), "%")
	s.citeStack(f, "", frames)
	f.Confidence = s.sure(doingBusy)
	if !s.lasting() {
		f.Severity = event.SeverityContributing // to a burst
	}
	place := or(s.place(doingBusy, ""), "its own code")
	f.because = fmt.Sprintf("%s was on a CPU in %s instead of accepting", actors(f.Processes), place)
	f.Title = fmt.Sprintf("the accept loop of %s is busy in %s", actors(f.Processes), place)
	f.fix("move that work off the accepting thread: TLS handshakes, parsing, compression, garbage collection")
	s.adviseAccepting(f)
	if s.shared {
		f.Confidence = event.ConfidencePossible
		f.Settles = "whether that code runs on the goroutine that accepts: a goroutine dump (SIGQUIT, or /debug/pprof/goroutine?debug=2)"
	}
	if len(frames) == 0 {
		f.Settles = "a profile of the accepting thread: perf record -g -t TID"
	}
	return f
}

// acceptsElsewhere tells of threads that slept in accept() while connections waited here: it was another socket's, as that of
// this one would have returned.
func acceptsElsewhere(s *subject) *found {
	call, frames := s.usual(doingWaiting)
	if !s.stoodStill() || !s.mainly(doingWaiting) || !strings.HasPrefix(call, "accept") || len(s.samples(doingBlocked)) > 0 {
		return nil
	}
	f := newFound(event.FindingAcceptLoopBlocked, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("time under pressure in which the accepting threads waited in accept()", percent(s.share(doingWaiting), 1), "%")
	s.citeStack(f, call, frames)
	f.because = fmt.Sprintf("%s slept in %s of another socket instead of accepting (for up to %s)", actors(f.Processes), call, seconds(s.stallMs))
	f.Title = fmt.Sprintf("the accept loop of %s is blocked in %s of another socket", actors(f.Processes), call)
	f.fix("give each listener a thread of its own, or wait for all of them in poll or epoll, and accept without blocking")
	f.Settles = "which descriptor it waits for: strace -p PID shows it, and ss -tlnp whose that is"
	return f
}

func noAcceptor(s *subject) *found {
	if s.Accepts == nil || *s.Accepts > 0 && !s.leftAlone() && len(s.ended()) == 0 {
		return nil
	}
	f := newFound(event.FindingNoAcceptor, s.drops).about(s.Listener, s.Processes)
	s.cite(f)
	f.saw("accepts in the window", *s.Accepts, "connections")
	f.saw("processes that hold the listener", len(s.Processes), "processes")
	if call, frames := s.usual(doingBlocked); call != "" || len(frames) > 0 {
		s.citeStack(f, call, frames)
	}
	f.Confidence = event.ConfidenceProven
	idle := s.idle()
	switch {
	case len(s.Processes) == 0:
		f.because = "nobody called accept(), and no process is known to hold the socket"
		f.Settles = "a holder in a PID namespace that cannot be seen from here: run on the node, as root"
	case len(s.ended()) > 0:
		f.Confidence = event.ConfidenceLikely
		f.because = fmt.Sprintf("%s, which accepted, has ended, and %s still holds the socket", actors(s.ended()), actors(s.Processes))
		f.Settles = "whether what still holds it was to accept: ss -tlnp names it, strace -p PID shows what it does"
		f.fix("start the service again, and find out why it ended")
	case *s.Accepts > 0:
		f.Confidence = event.ConfidenceLikely
		f.because = fmt.Sprintf("%s left the queue alone for %s while idle in poll: it stopped accepting by itself", actors(s.Processes), seconds(s.stallMs))
		f.Settles = "whether it was at its limit of connections then: its statistics or log, or strace -p PID, which shows whether it polls the listener"
		f.fix("look whether the server's connection limit was reached: maxconn, worker_connections, a semaphore around accept")
	case idle:
		f.because = actors(s.Processes) + " left the queue alone while idle in poll: it has stopped accepting by itself"
		f.fix("look at the server's connection limit (maxconn, worker_connections, a semaphore around accept): it is reached")
	default:
		f.because = "nobody called accept(): " + actors(s.Processes) + " holds the socket"
	}
	f.Title = f.because
	f.fix("look at why "+actors(s.Processes)+" does not accept: still starting, shutting down, deadlocked, or at its limit of connections",
		"close the listener in processes that do not serve it")
	return f
}

// ended are the processes that accepted, where those are known, most died in standstills, and none of them has the listener
// any more.
func (s *subject) ended() (processes []event.Process) {
	if !s.known || !s.stoodStill() {
		return nil
	}
	for _, t := range s.threads {
		if slices.ContainsFunc(s.Processes, func(p event.Process) bool { return p.PID == t.PID }) {
			return nil
		}
		if !slices.ContainsFunc(processes, func(p event.Process) bool { return p.PID == t.PID }) {
			processes = append(processes, event.Process{PID: t.PID, Comm: t.Comm})
		}
	}
	return processes
}

// leftAlone tells whether most died in standstills of a process that had accepted before, or did again, and was idle in poll. A thread that slept in something else may be the one that has the listener in its poll.
func (s *subject) leftAlone() bool {
	call, _ := s.usual(doingWaiting)
	return s.stoodStill() && !strings.HasPrefix(call, "accept") && s.idle() && len(s.samples(doingBlocked)) == 0
}

// stoodStill tells whether most died in standstills, one of them long.
func (s *subject) stoodStill() bool {
	return s.stallMs >= longWaitMs && float64(s.stallDrops) >= mostly*float64(s.seenDrops)
}

func acceptRateExceeded(s *subject) *found {
	if s.emptied() {
		return nil
	}
	seconds := s.perSecond()
	if _, enough := helps(s.whatIf); enough || s.Accepts == nil || *s.Accepts == 0 || s.stallMs >= longWaitMs || len(seconds) == 0 || !s.lasting() {
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
	// A queue that runs empty in between belongs to a server that is quick enough, and to clients that come in bunches.
	if pressed < 3 || float64(over) < mostly*float64(pressed) || came <= accepted || s.busy() < mostly {
		return nil
	}
	came, accepted = round(came/float64(pressed)), round(accepted/float64(pressed))
	f := newFound(event.FindingAcceptRateExceeded, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("arrivals under pressure", came, "SYNs/s")
	f.saw("accepts under pressure", accepted, "connections/s")
	f.saw("seconds in which more arrived than were accepted", over, "s")
	f.because = fmt.Sprintf("%s accepts %g connections/s and %g arrived", actors(f.Processes), accepted, came)
	f.Title = "connections arrive faster than " + actors(f.Processes) + " accepts"
	if s.idle() {
		f.saw("time under pressure in which the accepting threads were idle in poll", percent(s.share(doingWaiting), 1), "%")
		f.because += ", idle in poll meanwhile: it holds accepting back itself"
		f.fix("look at the server's connection limit (maxconn, worker_connections, a semaphore around accept): it is reached")
	}
	s.adviseAccepting(f)
	f.fix("let clients keep their connections open, so that fewer arrive")
	if s.judged < fewSteps {
		f.Settles = "samples of the accepting threads, which this input does not have: they say whether the loop computes or sleeps"
	}
	return f
}

// busy is the part of the steps between the first under pressure and the last in which connections waited.
func (s *subject) busy() float64 {
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
		if waiting(p) || s.standing[first+i] {
			n++
		}
	}
	return float64(n) / float64(last+1-first)
}

// emptied tells whether the accepting threads mainly slept in accept() even in the steps in which the queue was full:
// then they had emptied it, and what arrives is less than they can take.
func (s *subject) emptied() bool {
	call, _ := s.usual(doingWaiting)
	return !s.stoodStill() && s.mainly(doingWaiting) && (call == "accept" || call == "accept4")
}

// throttled tells whether a cgroup of the acceptors was throttled in a step.
func (s *subject) throttled(p event.TimelinePoint) bool {
	return p.Throttled || slices.ContainsFunc(s.Cgroups, func(c CPU) bool {
		return slices.ContainsFunc(c.Spans, func(sp Span) bool { return sp.FromMs < p.OffsetMs+s.StepMs && p.OffsetMs < sp.ToMs })
	})
}

// cite adds what every finding about the queue rests on.
func (s *subject) cite(f *found) {
	f.saw("packets dropped by the full accept queue", s.drops, "packets")
	if limit, ok := s.limit(); ok {
		f.saw("accept queue limit", limit, "sockets")
	}
	if s.pressedMs > 0 && s.StepMs <= 100 { // longer steps say too much
		f.saw("time that the queue was full or dropped", s.pressedMs, "ms")
	}
	if s.stallMs > 0 {
		f.saw("longest time without an accept while connections waited", s.stallMs, "ms")
	} else {
		sawKnown(f, "longest time without an accept while connections waited", s.LongestGapMs, "ms")
	}
	sawKnown(f, "SYNs in the window", s.Syns, "SYNs")
}

func (s *subject) citeStack(f *found, call string, frames []string) {
	if call != "" {
		f.saw("call that they slept in", call, "")
	}
	if len(frames) > 0 {
		f.saw("stack, innermost first", strings.Join(bound(frames, 12), " < "), "")
	}
}

// adviseAccepting says what the replay thinks of a quicker loop, of workers and of limits.
func (s *subject) adviseAccepting(f *found) {
	if s.whatIf == nil {
		f.fix("then add workers, one for each CPU at most")
		return
	}
	present := s.whatIf.Rows[0]
	for _, r := range s.whatIf.Rows {
		// What does not halve the drops is no advice.
		if r.Present || r.Limit != present.Limit || r.Dropped*2 > present.Dropped {
			continue
		}
		drops := fmt.Sprintf("would have dropped %s instead of %s", many(r.Dropped, "packet"), thousands(present.Dropped))
		if r.Workers > 1 {
			f.fix(fmt.Sprintf("%g times the workers %s", r.Workers, drops))
			if r.Dropped == 0 {
				break
			}
		} else if r.AcceptMs < present.AcceptMs {
			f.fix(fmt.Sprintf("a loop that never stands still for more than %s %s", seconds(r.AcceptMs), drops))
		}
	}
	f.fix(s.whatIf.Says)
}

// usual is the call that threads were seen in most while they did something under pressure, and the stack.
func (s *subject) usual(did doing) (call string, frames []string) {
	calls, texts := map[string]int{}, map[string]int{}
	for _, smp := range s.samples(did) {
		if smp.Syscall != "" {
			calls[smp.Syscall]++
		}
		if stack := smp.stack(); len(stack) > 0 {
			texts[strings.Join(stack, "\n")]++
		}
	}
	if text := commonest(texts); text != "" {
		frames = strings.Split(text, "\n")
	}
	return commonest(calls), frames
}

// place is the innermost function that most of these samples have in them: leaves differ, and every stack begins in main.
func (s *subject) place(did doing, not string) string {
	in, depth, all := map[string]int{}, map[string]int{}, 0
	for _, smp := range s.samples(did) {
		stack := smp.stack()
		if len(stack) == 0 {
			continue
		}
		all++
		here := map[string]bool{}
		for i, frame := range stack {
			frame = function(frame)
			if !here[frame] && !wrapper(frame) {
				here[frame] = true
				in[frame]++
				depth[frame] += i
			}
		}
	}
	best := ""
	mean := func(frame string) float64 { return float64(depth[frame]) / float64(in[frame]) }
	for frame, n := range in {
		switch {
		case float64(n) < 0.6*float64(all) || not != "" && strings.Contains(frame, not):
		case best == "" || mean(frame) < mean(best) || mean(frame) == mean(best) && frame < best:
			best = frame
		}
	}
	return best
}

// function takes the offset out of a frame: what a loop is in shows at many of them.
func function(frame string) string {
	name, rest, ok := strings.Cut(frame, "+0x")
	if !ok {
		return frame
	}
	if _, module, ok := strings.Cut(rest, " "); ok {
		name += " " + module
	}
	return name
}

// wrapper tells whether a function only leads to the kernel, or to the code that matters: everybody has it on the stack.
func wrapper(frame string) bool {
	for _, prefix := range []string{"internal/runtime/syscall", "runtime/internal/syscall", "syscall.", "golang.org/x/sys/", "runtime."} {
		if strings.HasPrefix(frame, prefix) {
			return true
		}
	}
	return false
}

// stack is the user's, where it is known.
func (smp Sample) stack() []string {
	if len(smp.User) > 0 {
		return smp.User
	}
	return smp.Kernel
}

// samples are those under pressure that show threads doing this.
func (s *subject) samples(did doing) []Sample {
	var out []Sample
	s.eachSample(func(_ Thread, smp Sample, what doing) {
		// One that ran and sleeps at the moment shows a stack that it does not compute in.
		if what == did && s.underPressure(smp) && (did != doingBusy || smp.OnCPU || smp.State == "R") {
			out = append(out, smp)
		}
	})
	return out
}

// sure is proven where hardly a sample says otherwise.
func (s *subject) sure(did doing) event.Confidence {
	if s.share(did) >= 0.8 {
		return event.ConfidenceProven
	}
	return event.ConfidenceLikely
}

// commonest breaks ties by name, so that the same evidence gives the same words.
func commonest(n map[string]int) string {
	best := ""
	for name, count := range n {
		if count > n[best] || count == n[best] && name < best {
			best = name
		}
	}
	return best
}

// accepting are the processes with the highest role.
func (s *subject) accepting() []event.Process {
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

func (s *subject) named(pids map[uint32]bool) []event.Process {
	var out []event.Process
	for _, p := range s.Processes {
		if pids[p.PID] {
			out = append(out, p)
		}
	}
	return out
}

// actors names processes in a sentence.
func actors(processes []event.Process) string {
	switch len(processes) {
	case 0:
		return "the server"
	case 1:
		return who(processes[0])
	}
	return fmt.Sprintf("%s and %d more", who(processes[0]), len(processes)-1)
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

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func round(v float64) float64 { return float64(int(v*10+0.5)) / 10 }
