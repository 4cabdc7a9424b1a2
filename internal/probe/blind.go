// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// findBlind notes with each hook of the plan what is not told as what it is, for want
// of the hook or of what it lacks on this kernel. It says of bpf/death.h, freed.h,
// ledger.h and path.h what they do there.
func (p *Plan) findBlind(facts *Facts) {
	v := view{facts: facts, plan: p, path: p.Backend != Tracepoint, freed: p.hooks("kfree_skb"),
		reasons: facts.tellReasons(), socket: facts.tellSockets(), split: len(facts.Code["kfree_skb"]) > 1}
	v.always()
	v.unhooked()
	v.misplaced()
	v.helpers()
	v.handshakes()
	v.byReasons()
}

// tellReasons: kfree_skb tells why, and the kernel names its reasons.
func (f *Facts) tellReasons() bool {
	return len(f.Reasons) > 0 && f.Tracepoints["kfree_skb"] >= reasonArgs
}

// tellPlaces: consume_skb tells which function frees, and the kernel where those are.
func (f *Facts) tellPlaces() bool { return f.Tracepoints["consume_skb"] >= 2 && len(f.Code) > 0 }

// tellSockets: kfree_skb tells for which socket the packet was. Without reasons that
// says too little: whatever dies at a listener would be taken for a bad ACK.
func (f *Facts) tellSockets() bool {
	return f.tellReasons() && f.Tracepoints["kfree_skb"] >= rxSocketArgs
}

// view is what a plan is judged by.
type view struct {
	facts *Facts
	plan  *Plan

	path    bool // the listen path's functions are hooked, not what frees its packets
	freed   bool // kfree_skb is hooked
	reasons bool // it tells why
	socket  bool // and for which socket
	split   bool // it is in pieces, so that it may tell no caller
}

// Why something is not told, where more than one cause shares it.
const (
	whyNoReasons = "kfree_skb tells no reason (from 5.17 on it does), and no function frees for this alone"
	whyNoName    = "this kernel names no such drop reason"
	whyNoSocket  = "kfree_skb does not tell for which listener (from 6.11 on it does)"
	whyNoFrees   = "kfree_skb is not hooked"
)

// add notes a blind spot with a hook, or, where the plan has none of that name, with
// the first one.
func (v *view) add(hook string, cause event.Cause, stage event.Stage, part, shows, why string) {
	i := max(0, slices.IndexFunc(v.plan.Hooks, func(h Hook) bool { return h.Name == hook }))
	h := &v.plan.Hooks[i]
	h.Blind = append(h.Blind, event.Blind{Cause: cause, Stage: stage, Part: part, Shows: shows, Why: why})
}

var other = event.CauseKernelOther.String()

// always lists what no kernel tells apart.
func (v *view) always() {
	v.add("", event.CauseNoMemory, event.StageUnknown, "", other, "a failed allocation moves no counter of its own")
	v.add("", event.CauseSynBacklogReserve, event.StageSyn, "", event.CauseSynBacklogReserve.String(),
		"inferred from the queue just after (proof: state): no counter of its own moves")
}

// unhooked lists what dies in functions of the listen path that are not hooked: the
// next hooked one finds counters moved that are not its own.
func (v *view) unhooked() {
	for _, f := range listenPath() {
		if !v.path || v.plan.hooks(f.name) || !v.plan.lists(f.name) {
			continue
		}
		for _, cause := range causesIn(f.name) {
			stage := event.StageAck
			if strings.HasSuffix(f.name, "_conn_request") {
				stage = event.StageSyn
			}
			v.add(f.name, cause, stage, f.part, event.ShowsUnattributed, f.name+" is not hooked")
		}
	}
}

// misplaced lists what tracepoints tell of another packet: the one at hand when they
// find the counters moved.
func (v *view) misplaced() {
	if v.path {
		return
	}
	if !v.facts.tellPlaces() {
		v.add("consume_skb", event.CauseICMPError, event.StageAck, "", other,
			"told of the next packet, or unattributed: consume_skb does not tell the place (from 6.5 on it does)")
	}
}

// causesIn lists the causes whose counters move in functions of the listen path.
func causesIn(functions ...string) []event.Cause {
	var causes []event.Cause
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		branch := o.Branch()
		if branch.Kind != event.KindDrop || len(branch.Counters) == 0 || branch.Cause == event.CauseKernelOther {
			continue
		}
		moves := func(function string) bool { return movesIn(branch, function) }
		if slices.ContainsFunc(functions, moves) && !slices.Contains(causes, branch.Cause) {
			causes = append(causes, branch.Cause)
		}
	}
	return causes
}

// movesIn tells whether a branch's counters move in this function of the listen path.
func movesIn(branch event.Branch, function string) bool {
	icmp := branch.Cause == event.CauseICMPError
	cookie := slices.Contains(branch.Counters, event.CounterSyncookiesRecv) ||
		slices.Contains(branch.Counters, event.CounterSyncookiesFailed)
	switch {
	case strings.HasSuffix(function, "_conn_request"):
		return branch.Stage == event.StageSyn
	case function == "tcp_req_err":
		return icmp
	case strings.HasPrefix(function, "cookie_"):
		return cookie
	}
	return branch.Stage == event.StageAck && !cookie && !icmp
}

// helpers lists what is told by neither counters nor frees alone.
func (v *view) helpers() {
	const lsm = "security_inet_conn_request"
	switch hooked := v.plan.hooks(lsm); {
	case v.facts.LSM && !hooked:
		v.add(lsm, event.CauseDeniedByLSM, event.StageUnknown, "", other, lsm+" is not hooked")
	case v.facts.LaterLSM && !hooked:
		v.add(lsm, event.CauseDeniedByLSM, event.StageUnknown, "by a BPF program that is loaded later", other,
			lsm+" is on the path of every SYN, and hooked only if something may refuse at the start")
	}
	if v.facts.OutNoRoutes == 0 {
		v.add("", event.CauseNoRouteBack, event.StageUnknown, "", other,
			"type information does not name the counter of missing routes")
	}
	v.answers()
}

// answers lists what is told as dropped while nobody looks at what is sent.
func (v *view) answers() {
	if v.plan.hooks(answerEvent) || !v.freed {
		return
	}
	why := "shows as dropped: " + answerEvent + " is not hooked"
	if v.plan.awaits(answerEvent) {
		why = "shows as dropped until " + answerEvent + " is attached: once a rule rejects"
	}
	if v.tellsFirewall() {
		v.add(answerEvent, event.CauseNetfilter, event.StageIngress, "rejected with an RST",
			event.CauseNetfilter.String(), why)
	}
	v.add(answerEvent, event.CauseKernelOther, event.StageIngress, "answered by an ICMP error",
		other, why)
}

// handshakes lists what is not told of those that were half open or queued.
func (v *view) handshakes() {
	const reset = "tcp_send_reset"
	bad := event.CauseBadHandshakeAck
	timed := v.plan.hooks(requestTimer)
	if !v.path {
		timed = v.plan.hooks(timerEvents()...)
	}
	if !timed {
		hook := requestTimer
		if !v.path {
			hook = timerEvents()[0]
		}
		v.add(hook, event.CauseHandshakeExpired, event.StageTimer, "", event.ShowsNothing, "their timer is not hooked")
		v.add(hook, event.CauseListenerClosed, event.StageTimer, "", event.ShowsNothing, "their timer is not hooked")
	}
	gone := goneFunction
	if !v.path {
		gone = goneEvent
	}
	if !v.freed || !v.plan.hooks(gone) {
		v.add(gone, event.CauseListenerClosed, event.StageAck, "", event.ShowsNothing,
			"takes hooks at both "+gone+" and kfree_skb")
	}
	if v.freed && !v.plan.hooks(gone) {
		const why = " these two are not told apart"
		v.add(gone, event.CauseListenerClosed, event.StageAck, "while others listen on its port", other, "without "+gone+why)
		v.add(gone, bad, event.StageAck, "that no handshake waits for", other, "without "+gone+why)
	}
	if !v.plan.hooks(reset) || !v.plan.seesListeners() {
		v.add(reset, event.CauseListenerClosed, event.StageClose, "", event.ShowsNothing,
			"takes hooks at both "+reset+" and inet_sock_set_state")
	}
	switch answers := v.plan.hooks(reset) || v.plan.hooks("tcp_v4_send_reset", "tcp_v6_send_reset"); {
	case !v.freed:
		v.add("kfree_skb", bad, event.StageAck, "moving no counter", event.ShowsNothing, whyNoFrees)
	case !v.path && !v.socket:
		v.add("kfree_skb", bad, event.StageAck, "dropped without a counter", event.ShowsNothing, whyNoSocket)
		if !answers {
			v.add(reset, bad, event.StageAck, "answered by an RST", event.ShowsNothing, reset+" is not hooked")
		}
	case !answers:
		v.add(reset, bad, event.StageAck, "answered by an RST", bad.String(), "shows as dropped: "+reset+" is not hooked")
	}
}
