// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/whatif"
	"github.com/synspy/synspy/internal/event"
)

func noAcceptor(s *Subject) *Found {
	ended := s.ended()
	if s.Accepts == nil || *s.Accepts > 0 && !s.leftAlone() && len(ended) == 0 {
		return nil
	}
	f := newFound(event.FindingNoAcceptor, s.drops).about(s.Listener, s.Processes)
	s.cite(f)
	f.saw("accepts in the window", *s.Accepts, "connections")
	f.saw("processes that hold the listener", len(s.Processes), "processes")
	if call, frames := s.usual(doingBlocked); call != "" || len(frames) > 0 {
		s.citeStack(f, call, frames)
	}
	// That nothing was accepted is counted; that nobody tried is not.
	f.Confidence = event.ConfidenceLikely
	here, elsewhere := s.polled()
	if elsewhere > here {
		f.saw("samples in which its epoll instance did not have the listener in it",
			fmt.Sprintf("%d of %d", elsewhere, here+elsewhere), "")
	}
	idle := s.idle()
	switch {
	case len(s.Processes) == 0:
		f.Because = "nobody accepted a connection, and no process is known to hold the socket"
		f.Settles = "who holds it: a process in a PID namespace that cannot be seen from here (run on the node, as root), an io_uring's table of files, or a message that nobody has read"
	case len(ended) > 0:
		f.Because = fmt.Sprintf("%s, which accepted, has ended, and %s still holds the socket", actors(ended), actors(s.Processes))
		f.Settles = "whether what still holds it was to accept: ss -tlnp names it, strace -f " + attach(f.Processes) + " shows what it does"
		f.fix("start the service again, and find out why it ended")
	case *s.Accepts > 0:
		f.Because = fmt.Sprintf("%s left the queue alone for %s while idle in poll: it stopped accepting by itself", actors(s.Processes), advice.Seconds(s.StallMs))
		f.Settles = "whether it was at its limit of connections then: its statistics or log"
		if elsewhere <= here {
			f.Settles += ", or strace -f " + attach(f.Processes) +
				", which shows whether it polls the listener"
		}
		f.fix("look whether the server's connection limit was reached: maxconn, worker_connections, a semaphore around accept")
	case idle:
		f.Because = actors(s.Processes) +
			" left the queue alone while idle in poll: it has stopped accepting by itself"
		f.fix("look at the server's connection limit (maxconn, worker_connections, a semaphore around accept): it is reached")
	default:
		f.Because = "nobody accepted a connection: " + actors(s.Processes) +
			" holds the socket"
		f.Settles = "whether it calls accept() at all: strace -f -e trace=accept4,accept " +
			attach(f.Processes)
	}
	f.Title = f.Because
	f.fix("look at why " + actors(s.Processes) +
		" does not accept: still starting, shutting down, deadlocked, or at its limit of connections")
	if len(s.Processes) > 1 {
		f.fix("close the listener in processes that do not serve it")
	}
	return f
}

// ended are the processes that accepted, where those are known, most died in standstills, and none
// of them has the listener any more.
func (s *Subject) ended() (processes []event.Process) {
	if !s.known || !s.stoodStill() {
		return nil
	}
	for _, t := range s.threads {
		if slices.ContainsFunc(s.Processes,
			func(p event.Process) bool { return p.PID == t.PID }) {
			return nil
		}
		if !slices.ContainsFunc(processes,
			func(p event.Process) bool { return p.PID == t.PID }) {
			processes = append(processes, event.Process{PID: t.PID, Comm: t.Comm})
		}
	}
	return processes
}

// leftAlone reports whether most died in standstills of a process that had accepted before, or did
// again, and was idle in poll. A thread that slept in something else may be the one that has the
// listener in its poll. Where the listener is among what is polled, whoever is told of it once, and
// not again while it waits (EPOLLET), has passed that on: to a goroutine, a task.
func (s *Subject) leftAlone() bool {
	call, _ := s.usual(doingWaiting)
	told, not := s.polled()
	return s.stoodStill() && !strings.HasPrefix(call, "accept") && told <= not &&
		!goRuntime(s.Threads) && s.idle() && len(s.samples(doingBlocked)) == 0
}

// polled counts the samples in which the threads waited for connections at the listener, and for
// others alone, where that is known.
func (s *Subject) polled() (here, elsewhere int) {
	for _, smp := range s.samples(doingWaiting) {
		switch {
		case smp.Polls == nil:
		case *smp.Polls:
			here++
		default:
			elsewhere++
		}
	}
	return here, elsewhere
}

// stoodStill reports whether most died in standstills, one of them long.
func (s *Subject) stoodStill() bool {
	return s.StallMs >= whatif.LongWaitMs &&
		float64(s.stallDrops) >= mostly*float64(s.seenDrops)
}
