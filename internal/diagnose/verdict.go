// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// verdict is the one sentence.
func verdict(e *Evidence, all []*found) string {
	if len(all) > 0 {
		return all[0].doubted(e, sentence(e, all)) + all[0].route(e)
	}
	return sentence(e, all)
}

func sentence(e *Evidence, all []*found) string {
	died := failed(e)
	if e.Silence != "" && diedOfAll(e.Counts) == 0 && (len(all) == 0 || all[0].Severity != event.SeverityCause) {
		return "Nothing was seen to be dropped, which proves nothing: " + e.Silence + "."
	}
	if len(all) == 0 {
		if died == 0 {
			return upper(bodies(e)) + "; whether any SYN arrived, this input does not say."
		}
		return many(died, "handshake packet") + " died, and nothing was found to explain it."
	}
	first := all[0]
	switch {
	case first.ID == event.FindingHealthy && first.Confidence == event.ConfidencePossible:
		return upper(first.because) + "."
	case first.ID == event.FindingHealthy:
		return "The listen path is not the problem: " + first.because + "."
	case first.ID == event.FindingNoSynArrived && fullAtEnd(e) != nil:
		return upper(first.because) + ", but " + queueFull(fullAtEnd(e)) + ": a SYN that comes is dropped there."
	case first.ID == event.FindingNoSynArrived && first.doubt:
		return upper(first.because) + "."
	case first.ID == event.FindingNoSynArrived:
		if programs := seesFirst(e); programs != "" {
			return upper(first.because) + ": what stops the clients is before it; look at " + programs + " first."
		}
		return upper(first.because) + ": what stops the clients is before it."
	case first.Severity != event.SeverityCause:
		return upper(bodies(e)) + map[bool]string{true: ", but ", false: "; worth knowing: "}[first.doubt] + first.because + "."
	}
	to := ""
	if first.Listener != nil && first.ID != event.FindingNoListener { // that is one which they did not go to
		to = " to " + where(*first.Listener)
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
	if died == 0 || first.counted {
		if first.ID == event.FindingReturnPathLost && noneFinished(e, first.Listener) {
			return fmt.Sprintf("No handshake%s was finished: %s%s.", to, first.because, more)
		}
		if first.ID == event.FindingSynQueuePressure && died == 0 { // cookies stood in for it
			return fmt.Sprintf("No handshake%s was seen to be dropped, but %s%s.", to, first.because, more)
		}
		return fmt.Sprintf("Handshakes%s are in trouble: %s%s.", to, first.because, more)
	}
	if n := first.weight; n > 0 && n < died && slices.Contains(deadly, first.ID) {
		of := "died of this"
		if to != "" {
			of = "went" + to
		}
		return fmt.Sprintf("Of %s that died, %s %s: %s%s.", many(died, "handshake packet"), thousands(n), of, first.because, more)
	}
	return fmt.Sprintf("%s%s died: %s%s.", many(died, "handshake packet"), to, first.because, more)
}

// noneFinished tells whether a listener's finished handshakes were counted, and there were none.
func noneFinished(e *Evidence, l *event.Listener) bool {
	return slices.ContainsFunc(e.Listeners, func(at Listener) bool {
		finished, known := at.finished()
		return l != nil && at.ID.Cookie == l.Cookie && at.ID.Port == l.Port && at.ID.NetNS == l.NetNS && known && finished == 0
	})
}

// late says how many were let down by a delay only: their SYN was dropped, and one that they sent again was not.
func late(e *Evidence) string {
	var n uint64
	for i := range e.Listeners {
		n += value(e.Listeners[i].Late)
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %s got through on a later try", many(n, "client"))
}

// bodies says how much died where nothing of it looks like a cause.
func bodies(e *Evidence) string {
	died, harmed := diedOfAll(e.Counts), failed(e)
	switch {
	case died == 0:
		return "nothing was seen to be dropped"
	case harmed == 0:
		return fmt.Sprintf("%s died, and no handshake is known to have failed by it", many(died, "packet"))
	}
	return many(harmed, "handshake packet") + " died, but nothing that looks like a cause"
}

// deadly are the findings whose weight is a number of packets that died.
var deadly = []event.FindingID{
	event.FindingProcessStopped, event.FindingCPUThrottled, event.FindingCPUStarved, event.FindingNoAcceptor, event.FindingAcceptLoopBlocked,
	event.FindingAcceptLoopBusy, event.FindingAcceptRateExceeded, event.FindingConnectionBurst, event.FindingBacklogTooSmall,
	event.FindingBacklogCapped, event.FindingReuseportImbalance, event.FindingSyncookiesDisabled, event.FindingDroppedBeforeListener,
	event.FindingNoListener, event.FindingListenerRestarted, event.FindingOtherDrops,
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
