// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/whatif"
	"github.com/synspy/synspy/internal/event"
)

// acceptQueue explains the drops of each listener's full accept queue, and connections that nobody
// accepts in one that has room: who waits there is connected, and unanswered.
func acceptQueue(e *evidence.Evidence) []*Found {
	var out []*Found
	for i := range e.Listeners {
		l := &e.Listeners[i]
		switch {
		case l.Dropped(event.CauseAcceptQueueFull) > 0:
			out = append(out, explain(NewSubject(e, l))...)
		case whatif.StandstillMs(l) >= whatif.LongWaitMs:
			out = append(out, leftWaiting(NewSubject(e, l)))
		}
	}
	return out
}

// leftWaiting explains why connections waited for seconds, though nothing was dropped.
func leftWaiting(s *Subject) *Found {
	for _, behaviour := range behaviours {
		if f := behaviour(s); f != nil {
			return f
		}
	}
	f := newFound(event.FindingNoAcceptor, 0).about(s.Listener, s.accepting())
	s.cite(f)
	f.Confidence = event.ConfidenceProven // that nobody did
	f.Because = fmt.Sprintf("nobody accepted on %s for %s while connections waited in its queue; what was seen does not say why", evidence.Where(s.ID), advice.Seconds(s.StallMs))
	f.Title = f.Because
	f.fix("look at why " + f.actors() +
		" did not accept: its threads below; who waits is connected, and unanswered")
	f.Settles = "what its threads do meanwhile: strace -f " + attach(f.Processes) +
		", or a stack of each"
	return f
}

func explain(s *Subject) []*Found {
	var out []*Found
	if f := reuseportImbalance(s); f != nil {
		out = append(out, f)
	}
	explained := false
	for _, behaviour := range behaviours {
		if f := behaviour(s); f != nil {
			out, explained = append(out, f), f.Severity == event.SeverityCause
			break
		}
	}
	for _, size := range s.sizes() {
		f := size(s)
		if f == nil {
			continue
		}
		// Who does not run takes nobody, however many come.
		if f.ID == event.FindingConnectionBurst && slices.ContainsFunc(out,
			func(f *Found) bool { return f.ID == event.FindingProcessStopped }) {
			continue
		}
		// A queue of which nothing shows that it is too small is no matter where it is
		// known what was wrong.
		if f.ID == event.FindingBacklogTooSmall &&
			f.Confidence == event.ConfidencePossible && len(out) > 0 {
			continue
		}
		// However many came: that nobody accepted for so long was not their doing.
		if explained || f.ID == event.FindingConnectionBurst && s.stoodStill() {
			f.Severity = event.SeverityContributing
		}
		explained = explained || f.Severity == event.SeverityCause
		out = append(out, f)
	}
	if f := abortOnOverflow(s); f != nil {
		out = append(out, f)
	}
	if !slices.ContainsFunc(out,
		func(f *Found) bool { return f.Severity == event.SeverityCause }) {
		out = append(out, unexplained(s))
	}
	return out
}

// unexplained says that the queue overflowed, and not why.
func unexplained(s *Subject) *Found {
	info := event.CauseAcceptQueueFull.Info()
	f := newFound(event.FindingOtherDrops, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.Title = "the accept queue overflowed"
	f.Confidence = event.ConfidenceProven // that it did
	f.Because = "the accept queue of " + f.actors() +
		" was full; what was seen does not say why"
	f.Owner = info.Owner
	f.fix(info.Fix)
	f.rests = restsUnexplained
	if gaps := f.refused(s.e); len(gaps) > 0 { // a longer session would see no more
		f.Title = "the accept queue overflowed, and why was refused"
		f.Because = "the accept queue of " + f.actors() +
			" was full; what might say why was refused: " + lacking(gaps)
		return f
	}
	f.Settles = "a live session while it happens: synspy diagnose"
	if len(s.Threads) > 0 {
		f.Settles = "a longer session: too few samples of the accepting threads fell into the moments of the drops"
	}
	return f
}

func reuseportImbalance(s *Subject) *Found {
	var full, idle []evidence.Member
	for _, m := range s.Members {
		limit := uint32(0)
		if m.Listener.AcceptQueue != nil {
			limit = m.Listener.AcceptQueue.Limit
		}
		switch {
		case evidence.Value(m.Dropped) > 0 || evidence.Value(m.FullMs) > 0:
			full = append(full, m)
		case m.Dropped != nil && m.BusiestLen != nil && *m.BusiestLen <= limit/2:
			idle = append(idle, m)
		}
	}
	f := newFound(event.FindingReuseportImbalance, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	group := s.ID.Reuseport
	switch {
	case len(full) > 0 && len(idle) > 0 && len(full)+len(idle) == len(s.Members):
		f.saw("sockets of the group", len(s.Members), "sockets")
		f.saw("of them full", len(full), "sockets")
		var longest uint32
		for _, m := range idle {
			longest = max(longest, evidence.Value(m.BusiestLen))
		}
		f.saw("longest queue of the others", longest, "connections")
		for _, m := range evidence.Bound(full, MaxProcesses) {
			f.saw("a full one belongs to", actors(m.Processes), "")
		}
		f.Confidence = event.ConfidenceProven
		rest := "the others were not"
		if len(idle) == 1 {
			rest = "the other was not"
		}
		f.Because = fmt.Sprintf("%d of the %d sockets that share the port %s full, that of %s, while %s", len(full), len(s.Members), advice.Be(uint64(len(full))), f.actors(), rest)
	case len(s.Members) == 0 && group != nil && group.Full > 0 && group.Full < group.Members:
		f.saw("sockets of the group", group.Members, "sockets")
		f.saw("of them full at a drop", group.Full, "sockets")
		f.Because = fmt.Sprintf("%d of the %d sockets that share the port %s full",
			group.Full, group.Members, advice.Be(uint64(group.Full)))
		f.Settles = "each member's queue over time: synspy diagnose, live"
	default:
		return nil
	}
	f.Title = f.Because
	f.fix("fix or close the full socket of "+f.actors()+": its share of the connections goes nowhere else",
		"spread connections by load: one shared socket, or a program attached with SO_ATTACH_REUSEPORT_EBPF")
	return f
}

func abortOnOverflow(s *Subject) *Found {
	var resets uint64
	for _, c := range s.Counts {
		if c.Cause == event.CauseAcceptQueueFull && c.Stage == event.StageAck &&
			c.Action == event.ActionReset {
			resets += c.Count
		}
	}
	if resets == 0 {
		return nil
	}
	f := newFound(event.FindingAbortOnOverflow, resets).about(s.Listener, s.accepting())
	f.Severity, f.Confidence = event.SeverityContributing, event.ConfidenceProven
	f.saw("handshakes reset by the full accept queue", resets, "packets")
	sawKnown(f, "net.ipv4.tcp_abort_on_overflow", s.Sysctls.AbortOnOverflow, "")
	now := s.Sysctls.AbortOnOverflow
	f.turn(advice.SysctlKnob(s.Listener, "net.ipv4.tcp_abort_on_overflow", now, 0, f.Processes,
		"the client's ACK is then retried, and connects once the queue has drained"))
	f.fix("keep it only where clients fail over faster on a reset than on a timeout")
	f.Because = "net.ipv4.tcp_abort_on_overflow turned overflows into resets"
	return f
}
