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

// quiet says what it means that nothing died that a client waited for.
func quiet(e *evidence.Evidence) []*Found {
	if evidence.Failed(e) > 0 || e.Silence != "" || hidden(e) { // overflow tells of the last
		return nil
	}
	var syns uint64
	known := !e.Lacks(evidence.NeedSyns)
	for i := range e.Listeners {
		l := &e.Listeners[i]
		known = known && (l.Syns != nil || e.GroupSyns != nil)
		syns += evidence.Value(l.Syns)
	}
	syns += evidence.Value(e.GroupSyns)
	if !known {
		return nil
	}
	if syns > 0 {
		return healthy(e, syns)
	}
	if e.Lacks(evidence.NeedIngress) || evidence.ClosedPorts(e) > 0 &&
		len(e.Listeners) == 0 { // SYNs came, to where nobody listens
		return nil
	}
	f := newFound(event.FindingNoSynArrived, 0)
	f.Severity, f.Confidence = event.SeverityNote, event.ConfidenceProven
	f.saw("SYNs in the window", uint64(0), "SYNs")
	f.saw("listeners", len(e.Listeners), "listeners")
	f.Because = "no SYN reached this kernel's IP stack"
	if e.OneNetNS { // another one, the host's, may stand before it
		f.Because = "no SYN reached the IP stack of this network namespace"
	}
	if len(waitingQueues(e)) > 0 { // SYNs may be among what waits
		f.Because, f.Confidence = "no SYN reached a listener", event.ConfidenceLikely
	}
	if e.Filter != "" {
		f.saw("filter", e.Filter, "")
		f.Because += " for " + e.Filter
	}
	if n := unseenChallenges(e); n > 0 { // challenged tells of them
		f.Confidence = event.ConfidencePossible
		f.saw("packets that may have been SYNs on connections that exist", n, "packets")
		f.Settles = "tcpdump on the port"
	}
	if l := FullAtEnd(e); l != nil {
		f.saw("a listener whose accept queue was full at the end",
			fmt.Sprintf("%s: %d of %d", evidence.Where(l.ID), l.ID.AcceptQueue.Len,
				l.ID.AcceptQueue.Limit), "")
		f.fix(fmt.Sprintf("watch for longer, while clients come: %s, and whoever holds it does not accept", QueueFull(l)))
	}
	if doubts := elsewhereToo(e, 0); len(doubts) > 0 {
		f.Doubt, f.Confidence = true, event.ConfidencePossible
		f.Title = "no SYN was seen at the ports and listeners asked about; clients' SYNs may be sent to other ports"
		f.Because = "no SYN was seen at the ports and listeners asked about (" + e.Filter +
			"); clients' SYNs may be sent to other ports: "
		f.Because += strings.TrimSpace(fmt.Sprint(doubts[0].What, ": ", doubts[0].Value,
			" ", doubts[0].Unit))
		f.Evidence = append(f.Evidence, doubts...)
		f.fix("watch without --port, or with the port that a rule or program sends SYNs to: filters see ports as they are after DNAT and REDIRECT")
		f.Settles = "synspy diagnose without --port, on the same network namespace"
		return []*Found{f}
	}
	f.sawForwarded(e)
	f.sawFrames(e)
	f.sawQueued(e)
	f.sawPrograms(e, AnyProgram)
	f.suggestPrograms(e, AnyProgram)
	if len(e.Devices) > 0 {
		f.Settles = "tcpdump on these devices: it sees packets after XDP and before tc: SYNs that it shows were not dropped by XDP"
	}
	if e.OneNetNS {
		f.fix("look at what stands before this network namespace on the same host, as the host's does before a container's (forward rules, routes): " +
			"synspy diagnose with --port and without --netns")
	}
	f.fix("check the filter: behind DNAT the port is the pod's, not the NodePort's",
		"look upstream: load balancer, security group, routing, the client itself")
	if f.Severity != event.SeverityCause {
		f.Title = f.Because
	}
	return []*Found{f}
}

// fewOpen is the part of the handshakes that may be open at the end of a window which proves
// something about the others.
const fewOpen = 0.1

// healthy says that the SYNs that came are accounted for, and what is not.
func healthy(e *evidence.Evidence, syns uint64) []*Found {
	if keptWaiting(e) != nil || missedDrops(e) { // told elsewhere
		return nil
	}
	h := evidence.Handshakes(e)
	if h != nil && h.Unaccounted > 0 {
		return []*Found{unaccounted(e, h, syns)}
	}
	if h != nil && h.Finished == 0 && !checksOnly(h) {
		return []*Found{unfinished(h, syns)}
	}
	if h != nil && h.Finished > 0 && 2*h.Waiting > h.Finished {
		return []*Found{leftAtEnd(h, syns)}
	}
	// Where no client wanted a connection, nothing shows that one could be had.
	if h != nil && (h.Finished == 0 || notable(h.Unanswered, h.Begun)) {
		return nil
	}
	f := newFound(event.FindingHealthy, ^uint64(0)>>1) // before the notes that it lives with
	f.quiet = true
	f.Severity, f.Confidence = event.SeverityNote, event.ConfidenceProven
	died := evidence.DiedOfAll(e.Counts)
	f.saw("SYNs in the window", syns, "SYNs")
	f.saw("dropped or reset", died, "packets")
	f.saw("listeners", len(e.Listeners), "listeners")
	f.Because = advice.Many(syns, "SYN") + " arrived and none was dropped"
	if died > 0 {
		f.Because = fmt.Sprintf("%s arrived, and %s died without letting a client down",
			advice.Many(syns, "SYN"), advice.Many(died, "packet"))
	}
	switch {
	case h == nil:
		f.Confidence = event.ConfidencePossible
		f.Because += "; what became of their handshakes was not counted"
		f.Settles = "whether the handshakes were finished: a live session, synspy diagnose, without a filter by client or address"
	case unwatchedDeferral(e):
		f.sawHandshakes(h)
		f.Confidence = event.ConfidencePossible
		f.Settles = "whether clients waited whose ACK TCP_DEFER_ACCEPT ignored: see the note on it"
	default:
		f.sawHandshakes(h)
		if h.Open > 0 {
			f.Because += "; " + ofHandshakes(h.Open, "still open at the end")
		}
		if float64(h.Waiting) > fewOpen*float64(h.Finished) {
			f.Confidence = event.ConfidenceLikely
			f.saw("finished, and not accepted at the end", h.Waiting, "connections")
			f.Settles = "a longer window: synspy diagnose --duration 5m"
		}
		if float64(h.Open) > fewOpen*float64(h.Begun) || h.Unanswered+h.Held > 0 ||
			closingUnseen(e) {
			f.Confidence = event.ConfidenceLikely
			f.Settles = "a longer window: synspy diagnose --duration 5m"
		}
	}
	f.fix("look behind accept(): the application's latency, TLS, what it calls",
		"or watch again while clients time out: synspy diagnose --duration 5m")
	f.takenUnseen(e)
	return []*Found{f}
}

// checksOnly reports whether clients ended all handshakes themselves, but for those that were under
// way when the window ended.
func checksOnly(h *event.Handshakes) bool {
	left := h.Begun - min(h.Begun, h.Ended)
	return left == 0 || h.Ended > 0 && left <= h.Open && (left == 1 ||
		float64(left) <= fewOpen*float64(h.Begun))
}

// sawHandshakes cites what became of them, leaving out what became of none.
func (f *Found) sawHandshakes(h *event.Handshakes) *Found {
	f.saw("handshakes begun", h.Begun, "handshakes")
	for _, part := range []struct {
		what string
		n    uint64
	}{
		{"finished", h.Finished}, {"ended by the client's RST",
			h.Ended}, {"reset or expired", h.Died},
		{"answered by a SYN cookie that did not come back",
			h.Cookies}, {"held back by TCP_DEFER_ACCEPT at the end", h.Held},
		{"unanswered at the end", h.Unanswered}, {"open at the end, younger than 3 s",
			h.Open}, {"not accounted for", h.Unaccounted},
	} {
		if part.n > 0 {
			f.saw("of them "+part.what, part.n, "handshakes")
		}
	}
	return f
}

// notable reports whether handshakes are more than an ordinary network loses.
func notable(n, of uint64) bool {
	return n >= fewUnanswered &&
		float64(n) >= partOfSyns*float64(of)
}

// unaccounted says that some handshakes are in none of the sums: then nothing is said of them.
func unaccounted(e *evidence.Evidence, h *event.Handshakes, syns uint64) *Found {
	f := newFound(event.FindingOtherDrops, ^uint64(0)-1) // before all but what the ledger has
	f.Severity, f.Confidence, f.Doubt = event.SeverityNote, event.ConfidencePossible, true
	f.quiet = true
	f.saw("SYNs in the window", syns, "SYNs")
	f.saw("dropped or reset", evidence.DiedOfAll(e.Counts), "packets")
	f.sawHandshakes(h)
	f.Because = fmt.Sprintf("what became of %s of %s is not known",
		evidence.Thousands(h.Unaccounted), advice.Many(h.Begun, "handshake"))
	f.Title = f.Because
	f.fix("watch again for longer: synspy diagnose --duration 5m",
		"synspy check says which deaths this kernel does not show")
	f.Settles = "tcpdump of these clients: whether they acknowledged the SYN-ACK"
	return f
}

// noHealth is a note that says why the window is not called healthy.
func noHealth(h *event.Handshakes, syns uint64) *Found {
	f := newFound(event.FindingOtherDrops, ^uint64(0)-1)
	f.Severity, f.Confidence, f.Doubt = event.SeverityNote, event.ConfidencePossible, true
	f.quiet = true
	f.saw("SYNs in the window", syns, "SYNs")
	f.sawHandshakes(h)
	return f
}

// unfinished says that the window ended before any handshake did.
func unfinished(h *event.Handshakes, syns uint64) *Found {
	f := noHealth(h, syns)
	f.Because = fmt.Sprintf("none of %s was finished in the window", advice.Many(h.Begun,
		"handshake"))
	f.Title = f.Because
	f.fix("watch again for longer: synspy diagnose --duration 5m")
	f.Settles = "whether the clients acknowledge the SYN-ACK: a longer window tells those that never do"
	return f
}

// leftAtEnd says that most of what was finished had not been accepted when the window ended: too
// lately to call it a standstill.
func leftAtEnd(h *event.Handshakes, syns uint64) *Found {
	f := noHealth(h, syns)
	f.saw("finished, and not accepted at the end", h.Waiting, "connections")
	f.Because = fmt.Sprintf("%s waited to be accepted at the end, and %s in the window",
		advice.Many(h.Waiting, "connection"), ofHandshakes(h.Finished, "finished"))
	f.Title = f.Because
	f.fix("watch again for longer: synspy diagnose --duration 5m",
		"look at what the process does that is to accept: its threads below")
	f.Settles = "whether they are accepted: a longer window tells how long they wait"
	return f
}

// missedDrops reports whether the kernel counted drops for which no packet was seen.
func missedDrops(e *evidence.Evidence) bool {
	return slices.ContainsFunc(e.Ledger, func(r event.LedgerRow) bool {
		return slices.Contains(dropCounters, r.Counter) && (r.Unattributed > 0 ||
			!r.Balanced())
	})
}

// dropCounters move with packets that die, and not with others.
var dropCounters = []string{event.CounterListenOverflows.String(),
	event.CounterListenDrops.String(), event.CounterTCPReqQFullDrop.String()}

// unwatchedDeferral reports whether ACKs were ignored on purpose of which nobody saw for how long
// their clients then waited.
func unwatchedDeferral(e *evidence.Evidence) bool {
	return slices.ContainsFunc(e.Listeners,
		func(l evidence.Listener) bool {
			return l.DeferredCount() > 0 &&
				l.Deferred == nil
		})
}

// closingUnseen reports whether a namespace took its counters along: its packets were seen, and not
// compared.
func closingUnseen(e *evidence.Evidence) bool {
	return slices.ContainsFunc(e.Ledger, func(r event.LedgerRow) bool { return r.Gone })
}

// keptWaiting is the listener whose connections waited longest without an accept: too long, though
// its queue had room for them.
func keptWaiting(e *evidence.Evidence) *evidence.Listener {
	var worst *evidence.Listener
	longest := float64(whatif.LongWaitMs)
	for i := range e.Listeners {
		if ms := whatif.StandstillMs(&e.Listeners[i]); ms >= longest {
			worst, longest = &e.Listeners[i], ms
		}
	}
	return worst
}

// FullAtEnd is a listener whose accept queue was over its limit when the window ended: that no SYN
// came does not clear it.
func FullAtEnd(e *evidence.Evidence) *evidence.Listener {
	for i := range e.Listeners {
		l := &e.Listeners[i]
		if q := l.ID.AcceptQueue; q != nil && q.Len > q.Limit && l.ClosedMs == nil {
			return l
		}
	}
	return nil
}

// QueueFull says that a listener's accept queue is full.
func QueueFull(l *evidence.Listener) string {
	return fmt.Sprintf("the accept queue of %s is full (%d of %d)", evidence.Where(l.ID),
		l.ID.AcceptQueue.Len, l.ID.AcceptQueue.Limit)
}
