// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/whatif"
	"github.com/synspy/synspy/internal/event"
)

// Where no behaviour of the threads explains a full queue, its size and the arrivals do. The first
// that holds is the cause, the others contribute; where a behaviour explains it, they contribute at
// most.
//
// A burst is the cause where the queue is as large as common servers make it by default. In a
// smaller queue, or one that is known to be cut below what would have held the burst, the limit is.
func (s *Subject) sizes() []func(*Subject) *Found {
	limit, _ := s.Limit()
	if limit < ordinaryLimit || s.cut() {
		return []func(*Subject) *Found{backlogCapped, backlogTooSmall, connectionBurst}
	}
	return []func(*Subject) *Found{connectionBurst, backlogCapped, backlogTooSmall}
}

const (
	// ordinaryLimit is the smallest backlog that common servers ask for by default.
	ordinaryLimit = 128
	// kernelSomaxconn is net.core.somaxconn's default since 5.4.
	kernelSomaxconn = 4096
)

// cut reports whether somaxconn is what limits the queue, and less than the kernel's default or
// than what listen() asked for.
func (s *Subject) cut() bool {
	limit, known := s.Limit()
	max := s.Sysctls.Somaxconn
	if !known || max == nil {
		return false
	}
	if s.AskedBacklog != nil && *s.AskedBacklog > limit {
		return true
	}
	return limit == *max && *max < kernelSomaxconn
}

func connectionBurst(s *Subject) *Found {
	j := s.jump()
	if !j.short {
		return nil
	}
	f := newFound(event.FindingConnectionBurst, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("arrivals in the busiest second", j.peak, "SYNs")
	f.saw("arrivals in an ordinary second", round(j.usual), "SYNs")
	sawKnown(f, "client addresses that lost packets", s.e.ClientsSeen, "addresses")
	f.Because = fmt.Sprintf("%g connections arrived in one second, where %g are usual", j.peak,
		round(j.usual))
	f.Title = f.Because
	f.fix("let clients reconnect with a random delay and exponential backoff")
	s.adviseLimit(f)
	f.Settles = "what the clients did at that moment: a deployment, a timeout of all at once, a scheduled job"
	return f
}

// unknownBacklog is why a limit does not tell who set it.
const unknownBacklog = "what listen() asked for is not known: the kernel keeps the smaller of that and net.core.somaxconn, and the call was not seen"

func backlogCapped(s *Subject) *Found {
	limit, known := s.Limit()
	somaxconn := s.Sysctls.Somaxconn
	if !known || somaxconn == nil {
		return nil
	}
	need, enough := whatif.Helps(s.WhatIf)
	asked := s.AskedBacklog
	since := asked != nil && *asked > limit && limit < *somaxconn
	if !enough || !since && limit != *somaxconn {
		return nil
	}
	f := newFound(event.FindingBacklogCapped, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	f.saw("net.core.somaxconn", *somaxconn, "sockets")
	sawKnown(f, "backlog that listen() asked for", asked, "sockets")
	f.saw("limit that would have dropped nothing, by the replay", need, "sockets")
	switch {
	case since:
		f.Because = fmt.Sprintf("listen() asked for %d and got %d: net.core.somaxconn was lower when it was called", *asked, limit)
		f.Confidence = event.ConfidenceProven
		f.fix("restart the server, or have it call listen() again: the limit is taken then, and net.core.somaxconn is " + fmt.Sprint(*somaxconn) + " now")
		f.Owner = "application"
	case asked != nil && *asked > limit:
		f.Because = fmt.Sprintf("listen() asked for %d and net.core.somaxconn cut it to %d",
			*asked, limit)
		f.Confidence = event.ConfidenceProven
	default:
		f.Because = fmt.Sprintf("net.core.somaxconn caps the accept queue at %d, and listen() asked for no less", limit)
		f.Settles = unknownBacklog +
			". Restart the server while synspy diagnose runs (Linux 5.15 or later), or see its start with strace -f -e trace=listen; " +
			"or raise net.core.somaxconn and restart it: where it asks for more, its limit follows"
	}
	f.Title = f.Because
	if *somaxconn < need {
		f.turn(advice.SysctlKnob(s.Listener, "net.core.somaxconn", somaxconn, need,
			f.Processes, s.WhatIf.Says))
		if asked == nil || *asked < need {
			f.turn(advice.ListenKnob(s.Listener, f.Processes, need,
				"the smaller of the two is the limit"))
		}
		f.fix("restart the server, or have it call listen() again: the limit is taken then")
	}
	return f
}

func backlogTooSmall(s *Subject) *Found {
	limit, known := s.Limit()
	somaxconn := s.Sysctls.Somaxconn
	if !known || somaxconn != nil && limit >= *somaxconn || s.AskedBacklog != nil &&
		*s.AskedBacklog > limit {
		return nil
	}
	if s.Accepts != nil && *s.Accepts == 0 { // none is large enough where nobody accepts
		return nil
	}
	need, enough := whatif.Helps(s.WhatIf)
	emptied := s.emptied() && limit < ordinaryLimit
	if !enough && !emptied && (s.WhatIf != nil || limit >= ordinaryLimit) {
		return nil
	}
	f := newFound(event.FindingBacklogTooSmall, s.drops).about(s.Listener, s.accepting())
	s.cite(f)
	sawKnown(f, "net.core.somaxconn", somaxconn, "sockets")
	sawKnown(f, "backlog that listen() asked for", s.AskedBacklog, "sockets")
	f.Because = fmt.Sprintf("the accept queue holds %d and more came at once", limit+1)
	f.Title = fmt.Sprintf("a backlog of %d is too small", limit)
	if s.AskedBacklog == nil && somaxconn != nil {
		f.Settles = unknownBacklog +
			". If net.core.somaxconn was lower then, a restart of who called listen() is enough"
	}
	switch {
	case !enough && emptied:
		// The replay knows no limit: it reckons with what was accepted while the queue was
		// full, and a loop that had emptied it could have taken more.
		if s.drains() {
			f.saw("times that it was empty again within two steps of an overflow",
				"each", "")
		}
		if s.mainly(doingWaiting) {
			f.saw("time under pressure in which the accepting threads waited for connections", advice.Percent(s.share(doingWaiting), 1), "%")
		}
		try, why := uint32(ordinaryLimit), "what common servers use at least"
		if burst := s.largestBurst(); burst > ordinaryLimit {
			try, why = burst, s.sayBurst(f, burst)
		}
		f.turn(advice.ListenKnob(s.Listener, f.Processes, try, why))
		if somaxconn != nil && *somaxconn < try {
			f.turn(advice.SysctlKnob(s.Listener, "net.core.somaxconn", somaxconn, try,
				f.Processes, "the smaller of the two is the limit"))
		}
		return f
	case !enough:
		// Small, but nothing shows that it is what was wrong.
		f.Severity, f.Confidence = event.SeverityContributing, event.ConfidencePossible
		f.Settles = "the queue and the accepts over time, which this input does not have"
		if len(s.Timeline) > 0 {
			f.Settles = "the queue and the accepts over time, which were not seen for the whole of the window: watch again"
		}
		f.turn(advice.ListenKnob(s.Listener, f.Processes, ordinaryLimit,
			"what common servers use at least"))
		return f
	}
	f.saw("limit that would have dropped nothing, by the replay", need, "sockets")
	try, why := need, s.WhatIf.Says
	if burst := s.largestBurst(); burst > need &&
		limit < ordinaryLimit { // shorter than a step, it was taken apart where one ended
		try, why = usualLimit(burst), s.sayBurst(f, burst)
		f.saw("limit that holds the largest burst", try, "sockets")
	}
	f.turn(advice.ListenKnob(s.Listener, f.Processes, try, why))
	if somaxconn == nil || *somaxconn < try {
		f.turn(advice.SysctlKnob(s.Listener, "net.core.somaxconn", somaxconn, try,
			f.Processes, "the smaller of the two is the limit"))
	}
	return f
}

// usualLimit is the smallest of the values that people set which is large enough.
func usualLimit(need uint32) uint32 {
	for _, usual := range whatif.UsualLimits {
		if usual >= need {
			return usual
		}
	}
	return need
}

// largestBurst is the most handshakes that began in two steps next to each other: what comes at
// once may lie in both.
func (s *Subject) largestBurst() uint32 {
	most, before := uint64(0), uint64(0)
	for _, n := range whatif.Begun(s.Timeline) {
		most, before = max(most, before+n), n
	}
	return uint32(min(most, 65535)) // as large as somaxconn may be
}

// sayBurst makes the largest burst evidence of f, and returns the words for it.
func (s *Subject) sayBurst(f *Found, burst uint32) string {
	f.saw("handshakes begun in the largest burst", burst, "handshakes")
	return fmt.Sprintf("%d came within %d ms", burst, 2*s.StepMs)
}

// adviseLimit names the limit that the replay found, or says why there is none.
func (s *Subject) adviseLimit(f *Found) {
	if s.WhatIf == nil {
		return
	}
	need, enough := whatif.Helps(s.WhatIf)
	if !enough {
		s.sayReplay(f)
		return
	}
	if evidence.Value(s.AskedBacklog) < need {
		f.turn(advice.ListenKnob(s.Listener, f.Processes, need, s.WhatIf.Says))
	}
	if s.Sysctls.Somaxconn == nil || *s.Sysctls.Somaxconn < need {
		f.turn(advice.SysctlKnob(s.Listener, "net.core.somaxconn", s.Sysctls.Somaxconn,
			need, f.Processes, "the smaller of the two is the limit"))
	}
}
