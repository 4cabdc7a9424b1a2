package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// rules turn evidence into findings. They do not know each other, except that quiet and otherDrops leave to
// the others what is theirs.
var rules = []func(*Evidence) []*found{
	acceptQueue,
	halfOpen,
	beforeListener,
	listenerRestarted,
	noListener,
	otherDrops,
	quiet,
}

// Diagnose judges the evidence. It does not change it, and the same evidence gives the same diagnosis.
func Diagnose(e *Evidence) event.Diagnosis {
	all := judge(e)
	d := event.Diagnosis{
		Header: event.Head("diagnosis"), Time: e.Start, WindowS: float64(e.WindowMs) / 1000,
		Verdict: verdict(e, all), Findings: []event.Finding{},
		Counts: e.Counts, Ledger: e.Ledger, Balanced: e.Balanced, Timeline: []event.Timeline{},
		Clients: bound(e.Clients, maxClients), Cannot: cannot(e),
	}
	if d.Ledger == nil {
		d.Ledger = []event.LedgerRow{}
	}
	for _, f := range all {
		d.Findings = append(d.Findings, f.Finding)
	}
	d.Listeners, d.Timeline, d.Unlisted = views(e)
	d.GroupSyns = e.GroupSyns
	return d
}

// judge runs the rules and puts causes first, those that explain most before others; then the order in which
// the rules told them stands.
func judge(e *Evidence) []*found {
	var all []*found
	for _, rule := range rules {
		all = append(all, rule(e)...)
	}
	all = reconcile(e, all)
	order := []event.Severity{event.SeverityCause, event.SeverityContributing, event.SeverityNote}
	slices.SortStableFunc(all, func(a, b *found) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity)), cmp.Compare(b.weight, a.weight))
	})
	return all
}

// reconcile lets findings give way to others: a closed port to the listener that was closed there, and health to any cause.
func reconcile(e *Evidence, all []*found) []*found {
	var there uint64
	for i := range e.Listeners {
		there += refusedAt(e, &e.Listeners[i])
	}
	closed := 2*there >= closedPorts(e) && slices.ContainsFunc(all, func(f *found) bool { return f.ID == event.FindingListenerRestarted })
	caused := slices.ContainsFunc(all, func(f *found) bool { return f.Severity == event.SeverityCause })
	for _, f := range all {
		if closed && f.ID == event.FindingNoListener && f.Severity == event.SeverityCause {
			f.Severity = event.SeverityContributing
		}
	}
	return slices.DeleteFunc(all, func(f *found) bool { return caused && f.ID == event.FindingHealthy })
}

// verdict is the one sentence.
func verdict(e *Evidence, all []*found) string {
	died := diedOfAll(e.Counts)
	if e.Silence != "" && died == 0 && (len(all) == 0 || all[0].Severity != event.SeverityCause) {
		return "Nothing was seen to be dropped, which proves nothing: " + e.Silence + "."
	}
	if len(all) == 0 {
		if died == 0 {
			return "Nothing was seen to be dropped; whether any SYN arrived, this input does not say."
		}
		return many(died, "handshake packet") + " died, and nothing was found to explain it."
	}
	first := all[0]
	switch {
	case first.ID == event.FindingHealthy && keptWaiting(e) != nil:
		return upper(first.because) + "."
	case first.ID == event.FindingHealthy:
		return "The listen path is not the problem: " + first.because + "."
	case first.ID == event.FindingNoSynArrived && fullAtEnd(e) != nil:
		return upper(first.because) + ", but " + queueFull(fullAtEnd(e)) + ": a SYN that comes is dropped there."
	case first.ID == event.FindingNoSynArrived:
		if programs := seesFirst(e); programs != "" {
			return upper(first.because) + ": what stops the clients is before it; look at " + programs + " first."
		}
		return upper(first.because) + ": what stops the clients is before it."
	case first.Severity != event.SeverityCause && died > 0:
		return fmt.Sprintf("%s died, but nothing that looks like a cause: %s.", many(died, "handshake packet"), first.because)
	case first.Severity != event.SeverityCause:
		return fmt.Sprintf("Nothing was dropped; worth knowing: %s.", first.because)
	}
	to := ""
	if first.Listener != nil {
		to = " to " + where(*first.Listener)
	}
	causes := 0
	for _, f := range all {
		if f.Severity == event.SeverityCause {
			causes++
		}
	}
	more := ""
	switch causes {
	case 1:
	case 2:
		more = "; there is another cause"
	default:
		more = fmt.Sprintf("; there are %d more causes", causes-1)
	}
	if died == 0 {
		return fmt.Sprintf("Handshakes%s are in trouble: %s%s.", to, first.because, more)
	}
	if n := first.weight; n > 0 && n < died && slices.Contains(deadly, first.ID) {
		of := "died of this"
		if first.Listener != nil {
			of = "went" + to
		}
		return fmt.Sprintf("Of %s that died, %s %s: %s%s.", many(died, "handshake packet"), thousands(n), of, first.because, more)
	}
	return fmt.Sprintf("%s%s died: %s%s.", many(died, "handshake packet"), to, first.because, more)
}

// deadly are the findings whose weight is a number of packets that died.
var deadly = []event.FindingID{
	event.FindingProcessStopped, event.FindingCPUThrottled, event.FindingCPUStarved, event.FindingNoAcceptor, event.FindingAcceptLoopBlocked,
	event.FindingAcceptLoopBusy, event.FindingAcceptRateExceeded, event.FindingConnectionBurst, event.FindingBacklogTooSmall,
	event.FindingBacklogCapped, event.FindingReuseportImbalance, event.FindingSyncookiesDisabled, event.FindingDroppedBeforeListener,
	event.FindingNoListener, event.FindingListenerRestarted, event.FindingOtherDrops,
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// needs lists the evidence without which a finding cannot be made at all.
var needs = map[event.FindingID][]Need{
	event.FindingProcessStopped:        {NeedThreads, NeedTimeline},
	event.FindingCPUThrottled:          {NeedThrottled, NeedTimeline},
	event.FindingCPUStarved:            {NeedThreads, NeedCPU, NeedTimeline},
	event.FindingAcceptLoopBlocked:     {NeedThreads, NeedTimeline},
	event.FindingAcceptLoopBusy:        {NeedThreads, NeedOnCPU, NeedTimeline},
	event.FindingNoAcceptor:            {NeedAccepts, NeedDivision},
	event.FindingAcceptRateExceeded:    {NeedAccepts, NeedTimeline, NeedSyns, NeedDivision},
	event.FindingConnectionBurst:       {NeedTimeline, NeedSyns, NeedDivision},
	event.FindingBacklogTooSmall:       {NeedAccepts, NeedTimeline, NeedSyns, NeedDivision},
	event.FindingBacklogCapped:         {NeedSysctls, NeedAccepts, NeedTimeline, NeedDivision},
	event.FindingReuseportImbalance:    {NeedMembers},
	event.FindingReturnPathLost:        {NeedSynAcks},
	event.FindingClientGaveUp:          {NeedSynAcks},
	event.FindingDroppedBeforeListener: {NeedIngress},
	event.FindingNoListener:            {NeedIngress},
	event.FindingNoSynArrived:          {NeedSyns, NeedIngress},
	event.FindingHealthy:               {NeedSyns},
}

// cannot says which findings the input could not have led to, one row a reason. A row without findings may concern any.
func cannot(e *Evidence) []event.CannotSupport {
	var out []event.CannotSupport
	for _, gap := range e.Missing {
		var ids []event.FindingID
		for _, info := range event.Findings() {
			if slices.Contains(needs[info.ID], gap.Need) {
				ids = append(ids, info.ID)
			}
		}
		i := slices.IndexFunc(out, func(c event.CannotSupport) bool { return c.Why == gap.Why })
		if i < 0 {
			i = len(out)
			out = append(out, event.CannotSupport{Why: gap.Why, Findings: []event.FindingID{}})
		}
		for _, id := range ids {
			if !slices.Contains(out[i].Findings, id) {
				out[i].Findings = append(out[i].Findings, id)
			}
		}
	}
	out = slices.DeleteFunc(out, func(c event.CannotSupport) bool { return len(c.Findings) == 0 })
	if e.LeftOut != "" {
		out = append(out, event.CannotSupport{Findings: []event.FindingID{}, Why: e.LeftOut})
	}
	return out
}
