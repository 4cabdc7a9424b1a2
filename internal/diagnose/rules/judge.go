// SPDX-License-Identifier: Apache-2.0

// Package rules turns evidence into findings. A rule names a culprit only if the evidence shows it.
package rules

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// rules turn evidence into findings. They do not know each other, except that quiet and otherDrops
// leave to the others what is theirs.
var rules = []func(*evidence.Evidence) []*Found{
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

// Judge runs the rules and puts causes first, those that explain most before others; then the order
// in which the rules told them stands.
func Judge(e *evidence.Evidence) []*Found {
	var all []*Found
	for _, rule := range rules {
		all = append(all, rule(e)...)
	}
	all = reconcile(e, all)
	for _, f := range all {
		f.sawRoutes(e)
		f.weaken(e)
	}
	order := []event.Severity{event.SeverityCause, event.SeverityContributing,
		event.SeverityNote}
	slices.SortStableFunc(all, func(a, b *Found) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Severity), slices.Index(order,
			b.Severity)), cmp.Compare(b.Weight, a.Weight))
	})
	return all
}

// reconcile lets findings give way to others: a closed port, and a queue with room that nobody
// emptied, to the listener that was closed there, and health to any cause.
func reconcile(e *evidence.Evidence, all []*Found) []*Found {
	var there uint64
	for i := range e.Listeners {
		there += refusedAt(e, &e.Listeners[i])
	}
	closed := 2*there >= evidence.ClosedPorts(e) && slices.ContainsFunc(all,
		func(f *Found) bool { return f.ID == event.FindingListenerRestarted })
	caused := slices.ContainsFunc(all, func(f *Found) bool {
		return f.Severity == event.SeverityCause ||
			f.Doubt && f.Severity == event.SeverityContributing
	})
	for _, f := range all {
		if closed && f.ID == event.FindingNoListener && f.Severity == event.SeverityCause {
			f.Severity = event.SeverityContributing
		}
		if f.Weight == 0 && f.Severity == event.SeverityCause && f.Listener != nil &&
			endedHere(all, f.Listener) {
			f.Severity = event.SeverityContributing // its end is what those that waited died of
		}
	}
	return slices.DeleteFunc(all, func(f *Found) bool { return caused && f.quiet })
}

// endedHere reports whether the listener's end is a cause.
func endedHere(all []*Found, l *event.Listener) bool {
	return slices.ContainsFunc(all, func(f *Found) bool {
		return f.ID == event.FindingListenerRestarted &&
			f.Severity == event.SeverityCause && f.Listener != nil &&
			f.Listener.Cookie == l.Cookie
	})
}

// needs lists the evidence without which a finding cannot be made at all.
var needs = map[event.FindingID][]evidence.Need{
	event.FindingProcessStopped: {evidence.NeedThreads, evidence.NeedTimeline},
	event.FindingCPUThrottled:   {evidence.NeedThrottled, evidence.NeedTimeline},
	event.FindingCPUStarved: {evidence.NeedThreads, evidence.NeedCPU,
		evidence.NeedTimeline},
	event.FindingAcceptLoopBlocked: {evidence.NeedThreads, evidence.NeedCalls,
		evidence.NeedTimeline},
	event.FindingAcceptLoopBusy: {evidence.NeedThreads, evidence.NeedOnCPU,
		evidence.NeedTimeline},
	event.FindingNoAcceptor: {evidence.NeedAccepts, evidence.NeedDivision},
	event.FindingAcceptRateExceeded: {evidence.NeedAccepts, evidence.NeedTimeline,
		evidence.NeedSyns, evidence.NeedDivision},
	event.FindingConnectionBurst: {evidence.NeedTimeline, evidence.NeedSyns,
		evidence.NeedDivision},
	event.FindingBacklogTooSmall: {evidence.NeedAccepts, evidence.NeedTimeline,
		evidence.NeedSyns, evidence.NeedDivision},
	event.FindingBacklogCapped: {evidence.NeedSysctls, evidence.NeedAccepts,
		evidence.NeedTimeline, evidence.NeedDivision},
	event.FindingReuseportImbalance:    {evidence.NeedMembers},
	event.FindingReturnPathLost:        {evidence.NeedSynAcks},
	event.FindingClientGaveUp:          {evidence.NeedSynAcks},
	event.FindingDroppedBeforeListener: {evidence.NeedIngress},
	event.FindingNoListener:            {evidence.NeedIngress},
	event.FindingNoSynArrived:          {evidence.NeedSyns, evidence.NeedIngress},
	event.FindingHealthy:               {evidence.NeedSyns},
}

// Cannot says which findings the input could not have led to, one row a reason, but for those that
// were found. A row without findings may concern any.
func Cannot(e *evidence.Evidence, all []*Found) []event.CannotSupport {
	var out []event.CannotSupport
	missing := slices.Clone(e.Missing)
	for i := range e.Listeners {
		missing = append(missing, e.Listeners[i].Missing...)
	}
	told := func(id event.FindingID) bool { // of the only listener, so that nothing is left to tell of another
		return len(e.Listeners) < 2 && slices.ContainsFunc(all,
			func(f *Found) bool { return f.ID == id })
	}
	for _, gap := range missing {
		var ids []event.FindingID
		for _, info := range event.Findings() {
			if told(info.ID) {
				continue
			}
			if slices.Contains(needs[info.ID], gap.Need) || len(gap.By) > 0 &&
				slices.Contains(Rests[info.ID], gap.Need) {
				ids = append(ids, info.ID)
			}
		}
		i := slices.IndexFunc(out,
			func(c event.CannotSupport) bool { return c.Why == gap.Why })
		if i < 0 {
			i = len(out)
			out = append(out, event.CannotSupport{Why: gap.Why,
				Findings: []event.FindingID{}})
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
	out = slices.DeleteFunc(out,
		func(c event.CannotSupport) bool { return len(c.Findings) == 0 })
	if e.LeftOut != "" {
		out = append(out, event.CannotSupport{Findings: []event.FindingID{},
			Why: e.LeftOut})
	}
	return out
}

// A full accept queue is explained by what its threads did. The first of these that the evidence
// shows is the cause, and no other of them is told: a stopped process also "does not accept", and a
// throttled one also "waits for a CPU".
var behaviours = []func(*Subject) *Found{
	processStopped,
	acceptFails,
	cpuThrottled,
	cpuStarved,
	acceptLoopBlocked,
	acceptLoopBusy,
	acceptsElsewhere,
	noAcceptor,
	acceptLoopStill,
	acceptRateExceeded,
}
