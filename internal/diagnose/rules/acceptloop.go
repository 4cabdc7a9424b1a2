// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

func acceptLoopBlocked(s *Subject) *Found {
	if !s.known || s.StallMs < standingMs && s.PressedMs < sustainedMs ||
		!s.mainly(doingBlocked) {
		return nil
	}
	f := newFound(event.FindingAcceptLoopBlocked, s.drops).about(s.Listener, s.looping())
	s.cite(f)
	call, frames := s.usual(doingBlocked)
	calls := s.calls(doingBlocked)
	f.saw("time under pressure in which the accepting threads slept elsewhere",
		advice.Percent(s.share(doingBlocked), 1), "%")
	s.citeStack(f, strings.Join(calls, ", "), frames)
	f.Confidence = s.sure(doingBlocked)
	if !s.lasting() {
		f.Severity = event.SeverityContributing // to a burst
	}
	named := or(list(calls), "another call")
	in := named
	if from := s.place(doingBlocked, call); from != "" && len(calls) < 2 {
		in += ", called from " + from + ","
	}
	f.Because = fmt.Sprintf("%s slept in %s instead of accepting", f.actors(), in)
	if s.StallMs >= standingMs {
		f.Because += fmt.Sprintf(" (for up to %s)", advice.Seconds(s.StallMs))
	}
	f.Title = fmt.Sprintf("the accept loop of %s is blocked in %s", f.actors(), named)
	s.adviseUnblocking(f, calls)
	s.adviseAccepting(f)
	if slices.ContainsFunc(calls, polls) {
		f.fix("or look at the server's connection limit, if it leaves connections alone until others end")
		f.Settles = "which descriptors it waits for: strace -f " + attach(f.Processes) +
			" shows them, and the listener is not among them"
	} else if len(frames) == 0 {
		f.Settles = "a stack of the thread while it sleeps says which code it is: gdb " +
			attachOne(f.Processes) + ", py-spy dump, jstack"
	}
	return f
}

// lockCalls are those in which a thread waits for another one, or for another process, of its own
// program: to take them away is no advice.
var lockCalls = []string{"futex", "futex_wait", "futex_waitv", "semop", "semtimedop", "flock",
	"wait4", "waitid"}

// polls reports whether a call waits for descriptors.
func polls(call string) bool {
	return slices.Contains(levelCalls, call) || strings.HasPrefix(call, "epoll_")
}

// sleeps reports whether a call waits for nothing but the time.
func sleeps(call string) bool { return strings.HasSuffix(call, "nanosleep") }

// adviseUnblocking says what to do about the calls that the accepting threads sleep in.
func (s *Subject) adviseUnblocking(f *Found, calls []string) {
	var locks, others []string
	for _, call := range calls {
		if slices.Contains(lockCalls, call) {
			locks = append(locks, call)
		} else if !polls(call) {
			others = append(others, call)
		}
	}
	if len(others) > 0 || len(calls) == 0 {
		how := "hand the connection on at once"
		if !slices.ContainsFunc(others, sleeps) {
			how += ", or set a timeout on the call"
		}
		f.fix(fmt.Sprintf("take %s off the accepting thread: %s", or(list(others),
			"the blocking call"), how))
	}
	if len(locks) > 0 {
		f.fix(fmt.Sprintf("find out what it waits for in %s: another thread or process has to wake it. A semaphore or lock held for long, "+
			"a limit of connections (Tomcat's maxConnections) or a full queue of work that is reached, is raised or emptied; jstack, gdb %s or py-spy dump show which it is", list(locks), attachOne(f.Processes)))
	}
}

// calls lists what each of the threads slept in most while it did something under pressure, the
// commonest first.
func (s *Subject) calls(did Doing) (calls []string) {
	each := make(map[uint64]map[string]int)
	s.EachSample(func(t evidence.Thread, smp evidence.Sample, what Doing) {
		if what == did && smp.Syscall != "" && s.UnderPressure(smp) {
			if each[t.Key()] == nil {
				each[t.Key()] = make(map[string]int)
			}
			each[t.Key()][smp.Syscall]++
		}
	})
	threads := make(map[string]int)
	for _, n := range each {
		threads[commonest(n)]++
	}
	return slices.SortedFunc(maps.Keys(threads), func(a, b string) int {
		return cmp.Or(cmp.Compare(threads[b], threads[a]), cmp.Compare(a, b))
	})
}

func acceptLoopBusy(s *Subject) *Found {
	if !s.known || s.StallMs < standingMs && s.PressedMs < sustainedMs || !s.mainly(doingBusy) {
		return nil
	}
	f := newFound(event.FindingAcceptLoopBusy, s.drops).about(s.Listener, s.looping())
	s.cite(f)
	_, frames := s.usual(doingBusy)
	f.saw("time under pressure in which the accepting threads computed",
		advice.Percent(s.share(doingBusy), 1), "%")
	s.citeStack(f, "", frames)
	f.Confidence = s.sure(doingBusy)
	if !s.lasting() {
		f.Severity = event.SeverityContributing // to a burst
	}
	place := or(s.place(doingBusy, ""), "its own code")
	f.Because = fmt.Sprintf("%s was on a CPU in %s instead of accepting", f.actors(), place)
	f.Title = fmt.Sprintf("the accept loop of %s is busy in %s", f.actors(), place)
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

// acceptsElsewhere reports threads that slept in accept() while connections waited here: it was
// another socket's, as that of this one would have returned.
func acceptsElsewhere(s *Subject) *Found {
	call, frames := s.usual(doingWaiting)
	if !s.stoodStill() || !s.mainly(doingWaiting) || !strings.HasPrefix(call, "accept") ||
		len(s.samples(doingBlocked)) > 0 {
		return nil
	}
	f := newFound(event.FindingAcceptLoopBlocked, s.drops).about(s.Listener, s.looping())
	s.cite(f)
	f.saw("time under pressure in which the accepting threads waited in accept()",
		advice.Percent(s.share(doingWaiting), 1), "%")
	s.citeStack(f, call, frames)
	f.Because = fmt.Sprintf("%s slept in %s of another socket instead of accepting (for up to %s)", f.actors(), call, advice.Seconds(s.StallMs))
	f.Title = fmt.Sprintf("the accept loop of %s is blocked in %s of another socket",
		f.actors(), call)
	f.fix("give each listener a thread of its own, or wait for all of them in poll or epoll, and accept without blocking")
	f.Settles = "which descriptor it waits for: strace -f " + attach(f.Processes) +
		" shows it, and ss -tlnp whose that is"
	return f
}

// acceptLoopStill reports a loop that stood still while connections waited, where it is not known
// which thread accepts, or no thread does but a goroutine or a callback: none of the processes'
// threads computed, wanted a CPU or was stopped meanwhile, so what accepts slept.
func acceptLoopStill(s *Subject) *Found {
	if evidence.Value(s.Accepts) == 0 || !s.allSampled() || s.StallMs < standingMs ||
		float64(s.stallDrops) < mostly*float64(s.seenDrops) {
		return nil
	}
	still, calls := s.still()
	if still < mostStill {
		return nil
	}
	f := newFound(event.FindingAcceptLoopBlocked, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("time of the standstills in which no thread of its processes was busy",
		advice.Percent(still, 1), "%")
	s.citeStack(f, list(calls), nil)
	if !s.lasting() {
		f.Severity = event.SeverityContributing
	}
	f.Because = fmt.Sprintf("%s accepted nothing for up to %s while connections waited, with all threads asleep", f.actors(), advice.Seconds(s.StallMs))
	f.Title = "the accept loop of " + f.actors() + " stood still, with all threads asleep"
	f.fix("look at what the code that accepts waits for between two accepts: a sleep, a lock or semaphore, a limit of connections, a call to another service")
	s.adviseAccepting(f)
	f.Settles = "where it waits: jstack, py-spy dump, gdb " + attachOne(f.Processes) +
		", or, of Go, a goroutine dump (SIGQUIT, or /debug/pprof/goroutine?debug=2)"
	return f
}

// mostStill is the part of the standstills in which no thread may have run for it to be said that
// the loop slept.
const mostStill = 0.8

// still is the part of the steps with connections left alone, of those that were sampled, in which
// the threads of its processes were all asleep, and hardly ran; and the calls that they slept in,
// the commonest first.
func (s *Subject) still() (part float64, calls []string) {
	type step struct {
		sampled, awake bool
		ranMs          float64
	}
	steps := make([]step, len(s.standing))
	in := make(map[string]int)
	for _, t := range s.Threads {
		before, first := uint32(0), true
		for _, smp := range t.Samples {
			if i := int(smp.OffsetMs / max(s.StepMs, 1)); i < len(steps) &&
				s.standing[i] && !smp.Calm {
				// What it ran since the sample before may have been before the
				// standstill.
				if did := classify(smp, smp.OffsetMs-min(before, smp.OffsetMs),
					first); i > 0 && s.standing[i-1] || did != doingBusy {
					steps[i].sampled = true
					steps[i].awake = steps[i].awake ||
						!slices.Contains(asleepStates, smp.State) ||
						smp.Frozen || did == DoingStarved
					steps[i].ranMs += evidence.Value(smp.RunMs)
					if smp.Syscall != "" && !steps[i].awake &&
						!evidence.Has(smp.User, parkedFrames) {
						in[smp.Syscall]++
					}
				}
			}
			before, first = smp.OffsetMs, false
		}
	}
	all, asleep := 0, 0
	for _, st := range steps {
		if !st.sampled {
			continue
		}
		all++
		if !st.awake && st.ranMs < (1-mostStill)*float64(s.StepMs) {
			asleep++
		}
	}
	if all < fewSteps {
		return 0, nil
	}
	calls = slices.SortedFunc(maps.Keys(in),
		func(a, b string) int {
			return cmp.Or(cmp.Compare(in[b], in[a]),
				cmp.Compare(a, b))
		})
	return float64(asleep) / float64(all), evidence.Bound(calls, MaxProcesses)
}

// asleepStates are those of a thread that waits for something.
var asleepStates = []string{"S", "D"}
