// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// suspects are the threads whose business accepting is.
type suspects struct {
	threads []Thread
	// known says that they were seen to accept, to wait for it, or to run whenever something was accepted.
	known bool
	// shared says that what accepts is passed from one of them to the other, as Go's goroutines are: only together
	// they tell what it did.
	shared bool
}

// suspectsOf are the threads that are known to accept; where none is, or those that seemed to did not run when others
// accepted, the threads that did; else all threads of the processes that accept, or else of all that hold it.
func suspectsOf(l *Listener) suspects {
	pick := func(want func(Thread) bool) []Thread {
		var out []Thread
		for _, t := range l.Threads {
			if want(t) {
				out = append(out, t)
			}
		}
		return out
	}
	accepts := func(t Thread) bool {
		return slices.ContainsFunc(l.Processes, func(p event.Process) bool { return p.PID == t.PID && p.Role == event.RoleAcceptor })
	}
	seen := pick(func(t Thread) bool { return t.Acceptor })
	if serving := pick(func(t Thread) bool { return t.Acceptor && !l.standsBy(t) }); len(serving) > 0 {
		seen = serving
	}
	ran := pick(func(t Thread) bool { return l.ranWithAccepts(t) >= mostAccepts && !reserve(t) })
	mine := slices.ContainsFunc(seen, func(t Thread) bool {
		return slices.ContainsFunc(ran, func(r Thread) bool { return r.key() == t.key() })
	})
	if mine { // who inherited the socket may have no use for it
		seen = slices.DeleteFunc(seen, func(t Thread) bool { return t.Alone && l.ranWithAccepts(t) == 0 })
	}
	idle := len(seen) > 0 && !slices.ContainsFunc(seen, func(t Thread) bool { return l.ranWithAccepts(t) != 0 })
	acceptors := pick(accepts)
	of := acceptors
	if len(of) == 0 {
		of = l.Threads
	}
	scheduled := goRuntime(of)
	switch {
	// A thread that waits in epoll for the listener may be one of many that do, and has accepted nothing if it did not run.
	case len(seen) > 0 && !idle && (mine || len(ran) == 0) && !(scheduled && waited(seen)):
		return suspects{threads: seen, known: true}
	case len(ran) == 1:
		return suspects{threads: ran, known: true}
	case scheduled:
		if shared := pick(func(t Thread) bool { return l.ranWithAccepts(t) > 0 && !reserve(t) }); len(shared) > 0 {
			return suspects{threads: shared, known: true, shared: true}
		}
	case len(ran) > 0:
		return suspects{threads: ran}
	}
	if len(seen) > 0 && !idle && !scheduled {
		return suspects{threads: seen, known: true}
	}
	return suspects{threads: of, known: len(acceptors) > 0 && alone(acceptors)}
}

// standsBy tells whether a thread is called an acceptor only because it is the only one of a process that has the socket, and
// does something else: it was seen to wait for other descriptors alone, or others are known to accept, as the workers of a
// master do that has opened the socket for them.
func (l *Listener) standsBy(t Thread) bool {
	if !t.Alone {
		return false
	}
	elsewhere := false
	for _, smp := range t.Samples {
		if smp.Polls == nil {
			continue
		}
		if *smp.Polls {
			return false
		}
		elsewhere = true
	}
	others := slices.ContainsFunc(l.Processes, func(p event.Process) bool { return p.Role == event.RoleAcceptor })
	return elsewhere || others && !slices.ContainsFunc(l.Processes, func(p event.Process) bool {
		return p.PID == t.PID && p.Role == event.RoleAcceptor
	})
}

const (
	// mostAccepts is the part of the steps with accepts that whoever accepts all, or nearly all, must have run in.
	mostAccepts = 0.8
	// fewAccepts are too few such steps to tell by.
	fewAccepts = 3
)

// ranWithAccepts is the part of the steps with accepts in which the thread ran: -1 where that is not known. A thread
// cannot accept without running. That it ran at some time since a sample long before says little, so that is
// asked only where nothing else is known; that it did not run all that time says as much as ever.
func (l *Listener) ranWithAccepts(t Thread) float64 {
	if part := l.ranInSteps(t, func(smp Sample) bool { return !smp.Calm || *smp.RunMs == 0 }); part >= 0 {
		return part
	}
	return l.ranInSteps(t, func(Sample) bool { return true })
}

// ranInSteps is the same by those samples that tell.
func (l *Listener) ranInSteps(t Thread, tells func(Sample) bool) float64 {
	ran := make(map[int]bool) // of those steps for which there is a sample
	for _, smp := range t.Samples {
		if smp.RunMs != nil && l.StepMs > 0 && tells(smp) {
			i := int(smp.OffsetMs / l.StepMs)
			ran[i] = ran[i] || *smp.RunMs > 0
		}
	}
	var in, all float64
	for i, p := range l.Timeline {
		if value(p.Accepts) == 0 {
			continue
		}
		now, known := ran[i]
		next, later := ran[i+1] // what ran since the sample before shows in the next one
		if !known && !later {
			continue
		}
		all++
		if now || next {
			in++
		}
	}
	if all < fewAccepts {
		return -1
	}
	return in / all
}

// reserve tells whether a thread was never seen but where its runtime keeps it without work.
func reserve(t Thread) bool {
	parked := 0
	for _, smp := range t.Samples {
		if has(smp.User, parkedFrames) {
			parked++
		} else if len(smp.User) > 0 || smp.State == "R" {
			return false
		}
	}
	return parked > 0
}

// waited tells whether threads were only ever seen in epoll, of those that wait: they were not in accept().
func waited(threads []Thread) bool {
	for _, t := range threads {
		for _, smp := range t.Samples {
			if strings.HasPrefix(smp.Syscall, "accept") {
				return false
			}
		}
	}
	return true
}

// goRuntime tells whether the threads are Go's, by their stacks.
func goRuntime(threads []Thread) bool {
	for _, t := range threads {
		for _, smp := range t.Samples {
			if slices.ContainsFunc(smp.User, func(f string) bool {
				return strings.HasPrefix(f, "runtime.goexit") || strings.HasPrefix(f, "runtime.mcall")
			}) {
				return true
			}
		}
	}
	return false
}

// alone tells whether each thread is the only one of its process.
func alone(threads []Thread) bool {
	pids := map[uint32]bool{}
	for _, t := range threads {
		if pids[t.PID] {
			return false
		}
		pids[t.PID] = true
	}
	return true
}
