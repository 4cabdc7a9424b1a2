// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// suspects are the threads whose business accepting is.
type suspects struct {
	threads []evidence.Thread
	// known says that they were seen to accept, to wait for it, or to run whenever something
	// was accepted.
	known bool
	// shared says that what accepts is passed from one of them to the other, as Go's goroutines
	// are: only together they tell what it did.
	shared bool
}

// suspectsOf are the threads that are known to accept; where none is, or those that seemed to did
// not run when others accepted, the threads that did; else all threads of the processes that
// accept, or else of all that hold it.
func suspectsOf(l *evidence.Listener) suspects {
	pick := func(want func(evidence.Thread) bool) []evidence.Thread {
		var out []evidence.Thread
		for _, t := range l.Threads {
			if want(t) {
				out = append(out, t)
			}
		}
		return out
	}
	accepts := func(t evidence.Thread) bool {
		return slices.ContainsFunc(l.Processes,
			func(p event.Process) bool {
				return p.PID == t.PID &&
					p.Role == event.RoleAcceptor
			})
	}
	seen := pick(func(t evidence.Thread) bool { return t.Acceptor })
	if serving := pick(func(t evidence.Thread) bool {
		return t.Acceptor &&
			!l.StandsBy(t)
	}); len(serving) > 0 {
		seen = serving
	}
	ran := pick(func(t evidence.Thread) bool {
		return l.RanWithAccepts(t) >= mostAccepts &&
			!reserve(t)
	})
	mine := slices.ContainsFunc(seen, func(t evidence.Thread) bool {
		return slices.ContainsFunc(ran,
			func(r evidence.Thread) bool { return r.Key() == t.Key() })
	})
	if mine { // who inherited the socket may have no use for it
		seen = slices.DeleteFunc(seen, func(t evidence.Thread) bool {
			return t.Alone &&
				l.RanWithAccepts(t) == 0
		})
	}
	idle := len(seen) > 0 && !slices.ContainsFunc(seen,
		func(t evidence.Thread) bool { return l.RanWithAccepts(t) != 0 })
	acceptors := pick(accepts)
	of := acceptors
	if len(of) == 0 {
		of = l.Threads
	}
	scheduled := goRuntime(of)
	switch {
	// A thread that waits in epoll for the listener may be one of many that do, and has
	// accepted nothing if it did not run.
	case len(seen) > 0 && !idle && (mine || len(ran) == 0) && !(scheduled && waited(seen)):
		return suspects{threads: seen, known: true}
	case len(ran) == 1:
		return suspects{threads: ran, known: true}
	case scheduled:
		if shared := pick(func(t evidence.Thread) bool {
			return l.RanWithAccepts(t) > 0 &&
				!reserve(t)
		}); len(shared) > 0 {
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

const (
	// mostAccepts is the part of the steps with accepts that whoever accepts all, or nearly
	// all, must have run in.
	mostAccepts = 0.8
)

// reserve reports whether a thread was never seen but where its runtime keeps it without work.
func reserve(t evidence.Thread) bool {
	parked := 0
	for _, smp := range t.Samples {
		if evidence.Has(smp.User, parkedFrames) {
			parked++
		} else if len(smp.User) > 0 || smp.State == "R" {
			return false
		}
	}
	return parked > 0
}

// waited reports whether threads were only ever seen in epoll, of those that wait: they were not in
// accept().
func waited(threads []evidence.Thread) bool {
	for _, t := range threads {
		for _, smp := range t.Samples {
			if strings.HasPrefix(smp.Syscall, "accept") {
				return false
			}
		}
	}
	return true
}

// goRuntime reports whether the threads are Go's, by their stacks.
func goRuntime(threads []evidence.Thread) bool {
	for _, t := range threads {
		for _, smp := range t.Samples {
			if slices.ContainsFunc(smp.User, func(f string) bool {
				return strings.HasPrefix(f, "runtime.goexit") ||
					strings.HasPrefix(f, "runtime.mcall")
			}) {
				return true
			}
		}
	}
	return false
}

// alone reports whether each thread is the only one of its process.
func alone(threads []evidence.Thread) bool {
	pids := map[uint32]bool{}
	for _, t := range threads {
		if pids[t.PID] {
			return false
		}
		pids[t.PID] = true
	}
	return true
}
