package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

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
