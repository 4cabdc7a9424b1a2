// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// rules turn evidence into findings. They do not know each other, except that quiet and otherDrops leave to
// the others what is theirs.
var rules = []func(*Evidence) []*found{
	acceptQueue,
	halfOpen,
	heldBack,
	clientsEnded,
	beforeListener,
	listenerRestarted,
	noListener,
	otherDrops,
	quiet,
	challenged,
	overflow,
}

// Diagnose judges the evidence. It does not change it, and the same evidence gives the same diagnosis.
func Diagnose(e *Evidence) event.Diagnosis {
	all := judge(e)
	d := event.Diagnosis{
		Header: event.Head("diagnosis"), Time: e.Start, WindowS: float64(e.WindowMs) / 1000,
		Verdict: doubt(e, all, verdict(e, all)), Findings: []event.Finding{},
		Counts: e.Counts, Ledger: e.Ledger, Overflow: e.Overflow, Balanced: e.Balanced, Unchecked: event.Unchecked(e.Counts), Timeline: []event.Timeline{},
		Handshakes: handshakes(e), Clients: bound(e.Clients, maxClients), ClientsSeen: e.ClientsSeen, Cannot: cannot(e, all),
	}
	if d.Ledger == nil {
		d.Ledger = []event.LedgerRow{}
	}
	for _, f := range all {
		d.Findings = append(d.Findings, f.Finding)
	}
	d.Listeners, d.Timeline, d.Unlisted = views(e)
	d.GroupSyns, d.Unsure = e.GroupSyns, e.Unsure
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
	for _, f := range all {
		f.sawRoutes(e)
		f.weaken(e)
	}
	order := []event.Severity{event.SeverityCause, event.SeverityContributing, event.SeverityNote}
	slices.SortStableFunc(all, func(a, b *found) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity)), cmp.Compare(b.weight, a.weight))
	})
	return all
}

// reconcile lets findings give way to others: a closed port, and a queue with room that nobody emptied, to the listener that
// was closed there, and health to any cause.
func reconcile(e *Evidence, all []*found) []*found {
	var there uint64
	for i := range e.Listeners {
		there += refusedAt(e, &e.Listeners[i])
	}
	closed := 2*there >= closedPorts(e) && slices.ContainsFunc(all, func(f *found) bool { return f.ID == event.FindingListenerRestarted })
	caused := slices.ContainsFunc(all, func(f *found) bool {
		return f.Severity == event.SeverityCause || f.doubt && f.Severity == event.SeverityContributing
	})
	for _, f := range all {
		if closed && f.ID == event.FindingNoListener && f.Severity == event.SeverityCause {
			f.Severity = event.SeverityContributing
		}
		if f.weight == 0 && f.Severity == event.SeverityCause && f.Listener != nil && endedHere(all, f.Listener) {
			f.Severity = event.SeverityContributing // its end is what those that waited died of
		}
	}
	return slices.DeleteFunc(all, func(f *found) bool { return caused && f.quiet })
}

// endedHere tells whether the listener's end is a cause.
func endedHere(all []*found, l *event.Listener) bool {
	return slices.ContainsFunc(all, func(f *found) bool {
		return f.ID == event.FindingListenerRestarted && f.Severity == event.SeverityCause && f.Listener != nil && f.Listener.Cookie == l.Cookie
	})
}

// needs lists the evidence without which a finding cannot be made at all.
var needs = map[event.FindingID][]Need{
	event.FindingProcessStopped:        {NeedThreads, NeedTimeline},
	event.FindingCPUThrottled:          {NeedThrottled, NeedTimeline},
	event.FindingCPUStarved:            {NeedThreads, NeedCPU, NeedTimeline},
	event.FindingAcceptLoopBlocked:     {NeedThreads, NeedCalls, NeedTimeline},
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

// cannot says which findings the input could not have led to, one row a reason, but for those that were
// found. A row without findings may concern any.
func cannot(e *Evidence, all []*found) []event.CannotSupport {
	var out []event.CannotSupport
	missing := slices.Clone(e.Missing)
	for i := range e.Listeners {
		missing = append(missing, e.Listeners[i].Missing...)
	}
	told := func(id event.FindingID) bool { // of the only listener, so that nothing is left to tell of another
		return len(e.Listeners) < 2 && slices.ContainsFunc(all, func(f *found) bool { return f.ID == id })
	}
	for _, gap := range missing {
		var ids []event.FindingID
		for _, info := range event.Findings() {
			if told(info.ID) {
				continue
			}
			if slices.Contains(needs[info.ID], gap.Need) || len(gap.By) > 0 && slices.Contains(rests[info.ID], gap.Need) {
				ids = append(ids, info.ID)
			}
		}
		i := slices.IndexFunc(out, func(c event.CannotSupport) bool { return c.Why == gap.Why })
		if i < 0 {
			i = len(out)
			out = append(out, event.CannotSupport{Why: gap.Why, Findings: []event.FindingID{}})
		}
		for _, by := range gap.By {
			out[i].Takes = addOnce(out[i].Takes, by)
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
