// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// verdict is the one sentence.
func verdict(e *evidence.Evidence, all []*rules.Found) string {
	if len(all) > 0 {
		return all[0].Doubted(e, sentence(e, all)) + all[0].Route(e)
	}
	return sentence(e, all)
}

func sentence(e *evidence.Evidence, all []*rules.Found) string {
	died := evidence.Failed(e)
	if e.Silence != "" && evidence.DiedOfAll(e.Counts) == 0 && (len(all) == 0 ||
		all[0].Severity != event.SeverityCause) {
		return "Nothing was seen to be dropped, which proves nothing: " + e.Silence + "."
	}
	if len(all) == 0 {
		if died == 0 {
			return advice.Upper(advice.Bodies(e)) +
				"; whether any SYN arrived, this input does not say."
		}
		return advice.Many(died, "handshake packet") +
			" died, and nothing was found to explain it."
	}
	first := all[0]
	switch {
	case first.ID == event.FindingHealthy && first.Confidence == event.ConfidencePossible:
		return advice.Upper(first.Because) + "."
	case first.ID == event.FindingHealthy:
		return "The listen path is not the problem: " + first.Because + "."
	case first.ID == event.FindingNoSynArrived && rules.FullAtEnd(e) != nil:
		return advice.Upper(first.Because) + ", but " +
			rules.QueueFull(rules.FullAtEnd(e)) + ": a SYN that comes is dropped there."
	case first.ID == event.FindingNoSynArrived && first.Doubt:
		return advice.Upper(first.Because) + "."
	case first.ID == event.FindingNoSynArrived:
		if programs := rules.SeesFirst(e); programs != "" {
			return advice.Upper(first.Because) +
				": what stops the clients is before it; look at " + programs +
				" first."
		}
		return advice.Upper(first.Because) + ": what stops the clients is before it."
	case first.Severity != event.SeverityCause:
		return advice.Upper(advice.Bodies(e)) + map[bool]string{true: ", but ",
			false: "; worth knowing: "}[first.Doubt] + first.Because + "."
	}
	to := ""
	if first.Listener != nil &&
		first.ID != event.FindingNoListener { // that is one which they did not go to
		to = " to " + evidence.Where(*first.Listener)
	}
	causes := 0
	for _, f := range all {
		if f.Severity == event.SeverityCause {
			causes++
		}
	}
	more := late(e)
	switch causes {
	case 1:
	case 2:
		more += "; there is another cause"
	default:
		more += fmt.Sprintf("; there are %d more causes", causes-1)
	}
	if died == 0 || first.Counted {
		if first.ID == event.FindingReturnPathLost && noneFinished(e, first.Listener) {
			return fmt.Sprintf("No handshake%s was finished: %s%s.", to, first.Because,
				more)
		}
		if first.ID == event.FindingSynQueuePressure &&
			died == 0 { // cookies stood in for it
			return fmt.Sprintf("No handshake%s was seen to be dropped, but %s%s.", to,
				first.Because, more)
		}
		return fmt.Sprintf("Handshakes%s are in trouble: %s%s.", to, first.Because, more)
	}
	if n := first.Weight; n > 0 && n < died && slices.Contains(deadly, first.ID) {
		of := "died of this"
		if to != "" {
			of = "went" + to
		}
		return fmt.Sprintf("Of %s that died, %s %s: %s%s.", advice.Many(died,
			"handshake packet"), evidence.Thousands(n), of, first.Because, more)
	}
	return fmt.Sprintf("%s%s died: %s%s.", advice.Many(died, "handshake packet"), to,
		first.Because, more)
}

// noneFinished reports whether a listener's finished handshakes were counted, and there were none.
func noneFinished(e *evidence.Evidence, l *event.Listener) bool {
	return slices.ContainsFunc(e.Listeners, func(at evidence.Listener) bool {
		finished, known := at.HandshakesFinished()
		return l != nil && at.ID.Cookie == l.Cookie && at.ID.Port == l.Port &&
			at.ID.NetNS == l.NetNS && known && finished == 0
	})
}

// late says how many were let down by a delay only: their SYN was dropped, and one that they sent
// again was not.
func late(e *evidence.Evidence) string {
	var n uint64
	for i := range e.Listeners {
		n += evidence.Value(e.Listeners[i].Late)
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %s got through on a later try", advice.Many(n, "client"))
}

// deadly are the findings whose weight is a number of packets that died.
var deadly = []event.FindingID{
	event.FindingProcessStopped, event.FindingCPUThrottled, event.FindingCPUStarved,
	event.FindingNoAcceptor, event.FindingAcceptLoopBlocked,
	event.FindingAcceptLoopBusy, event.FindingAcceptRateExceeded, event.FindingConnectionBurst,
	event.FindingBacklogTooSmall,
	event.FindingBacklogCapped, event.FindingReuseportImbalance,
	event.FindingSyncookiesDisabled, event.FindingDroppedBeforeListener,
	event.FindingNoListener, event.FindingListenerRestarted, event.FindingOtherDrops,
}
