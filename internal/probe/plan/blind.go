// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
)

// findBlind notes with each hook of the plan what is not told as what it is, for want
// of the hook or of what it lacks on this kernel: it walks over what the branches of
// internal/event/outcome.go need.
func (p *Plan) findBlind(here *facts.Facts) {
	v := view{facts: here, plan: p, path: p.Backend != facts.Tracepoint, freed: p.Attaches("kfree_skb"),
		reasons: here.TellReasons(), socket: here.TellSockets(), split: len(here.Code["kfree_skb"]) > 1}
	for _, c := range event.Causes() {
		if c.NoOutcome != "" {
			v.add("", event.Blind{Cause: c.Cause, Shows: other, Why: c.NoOutcome})
		}
	}
	for _, l := range slices.Concat(v.unhooked(), v.lacks(), v.reasonless(), v.unseen()) {
		v.without(l)
	}
}

// view is what a plan is judged by.
type view struct {
	facts *facts.Facts
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
	notHooked    = " is not hooked"

	frees = "kfree_skb"
)

// add notes a blind spot with a hook, or, where the plan has none of that name, with
// the first one; once.
func (v *view) add(hook string, blind event.Blind) {
	i := max(0, slices.IndexFunc(v.plan.Hooks, func(h Hook) bool { return h.Name == hook }))
	if h := &v.plan.Hooks[i]; !slices.Contains(h.Blind, blind) {
		h.Blind = append(h.Blind, blind)
	}
}

const nothing = event.ShowsNothing

var other = event.CauseKernelOther.String()

// own says that a branch shows as its own cause: with another action, or by weaker proof.
const own = ""

// lack is something that a plan may do without, and what the branches that need it show as then.
type lack struct {
	when  bool
	need  event.Need
	of    event.Outcome // where set, that one instead of all that need it
	hook  string
	shows string
	why   string
	part  string // which of the deaths; empty: all
	any   bool   // wherever the cause can be, in one
}

// without notes the branches that a plan does not tell for a lack. Of kernel_other, which is of many
// kinds, only those that are named.
func (v *view) without(l lack) {
	for o := range event.NumOutcomes {
		b := o.Branch()
		needs := l.of == event.OutcomeNone && b.Needs&l.need != 0 && b.Cause != event.CauseKernelOther
		if !l.when || b.Kind != event.KindDrop || l.of != o && !needs {
			continue
		}
		blind := event.Blind{Cause: b.Cause, Stage: b.Stage, Part: l.part, Shows: l.shows, Why: l.why}
		if l.any {
			blind.Stage = event.StageUnknown
		}
		if l.shows == own {
			blind.Shows = b.Cause.String()
		}
		v.add(l.hook, blind)
	}
}

// unhooked lists the functions of the listen path that are not hooked: the next hooked one finds
// counters moved that are not its own.
func (v *view) unhooked() (list []lack) {
	for _, f := range facts.ListenPath() {
		list = append(list, lack{when: v.path && !v.plan.Attaches(f.Name) && v.plan.Lists(f.Name),
			need: f.At, hook: f.Name, part: f.Part, shows: event.ShowsUnattributed,
			why: f.Name + notHooked})
	}
	return list
}

// lacks lists what plans may lack of what tells the ends of handshakes.
func (v *view) lacks() []lack {
	const (
		reset, bad = "tcp_send_reset", event.OutcomeAckBadAnswered
		answered   = "answered by an RST"
	)
	timer, timed, gone := facts.RequestTimer, v.plan.Attaches(facts.RequestTimer), facts.GoneFunction
	if !v.path {
		timer, timed, gone = facts.TimerEvents()[0], v.plan.Attaches(facts.TimerEvents()...), facts.GoneEvent
	}
	ungone := v.freed && !v.plan.Attaches(gone)
	undivided := "without " + gone + " these two are not told apart"
	closes := v.plan.Attaches(reset) && v.plan.seesListeners()
	unanswered := v.freed && !v.plan.Attaches(reset) &&
		!v.plan.Attaches("tcp_v4_send_reset", "tcp_v6_send_reset")
	return []lack{
		{when: true, need: event.NeedQueue, shows: own,
			why: "inferred from the queue just after (proof: state): " +
				"no counter of its own moves"},
		{when: !v.path && !v.facts.TellPlaces(), need: event.AtICMP, hook: "consume_skb",
			shows: other,
			why: "told of the next packet, or unattributed: consume_skb does not tell the " +
				"place (from 6.5 on it does)"},
		v.lsm(),
		{when: v.facts.OutNoRoutes == 0, need: event.NeedRoutes, shows: other, any: true,
			why: "type information does not name the counter of missing routes"},
		{when: !timed, need: event.NeedTimer, hook: timer, shows: nothing,
			why: "their timer is not hooked"},
		{when: !v.freed || ungone, need: event.NeedGone, hook: gone, shows: nothing,
			why: "takes hooks at both " + gone + " and kfree_skb"},
		{when: ungone, need: event.NeedGone, hook: gone, shows: other, why: undivided,
			part: "while others listen on its port"},
		{when: ungone, of: bad, hook: gone, shows: other, why: undivided,
			part: "that no handshake waits for"},
		{when: !closes, need: event.NeedClose, hook: reset, shows: nothing,
			why: "takes hooks at both " + reset + " and inet_sock_set_state"},
		{when: !v.freed, of: event.OutcomeAckBadQuiet, hook: frees, shows: nothing,
			why: whyNoFrees, part: "moving no counter"},
		{when: v.freed && !v.whose(), need: event.NeedListener,
			of: event.OutcomeAckBadQuiet, hook: frees, shows: nothing,
			why: whyNoSocket, part: "dropped without a counter"},
		{when: unanswered && !v.whose(), need: event.NeedResets, of: bad, hook: reset,
			shows: nothing, why: reset + notHooked, part: answered},
		{when: unanswered && v.whose(), need: event.NeedResets, of: bad, hook: reset,
			shows: own, why: "shows as dropped: " + reset + notHooked, part: answered},
	}
}

// whose reports whether it is told for whom a packet was that TCP frees.
func (v *view) whose() bool { return v.path || v.socket }

// lsm is what a security module refuses.
func (v *view) lsm() lack {
	const hook = "security_inet_conn_request"
	l := lack{when: v.facts.LSM && !v.plan.Attaches(hook), need: event.NeedLSM, hook: hook,
		shows: other, why: hook + notHooked, any: true}
	if v.facts.LaterLSM && !v.facts.LSM {
		l.when, l.part = !v.plan.Attaches(hook), "by a BPF program that is loaded later"
		l.why = hook + " is on the path of every SYN, and hooked only if something may " +
			"refuse at the start"
	}
	return l
}

// unseen lists what is not told of deaths before a listener, but those that take a reason.
func (v *view) unseen() []lack {
	const timeWait = "tcp_timewait_state_process"
	passed := nothing
	if v.path {
		passed = other
	}
	unwatched := v.freed && !v.plan.Attaches(facts.AnswerEvent)
	why := "shows as dropped: " + facts.AnswerEvent + notHooked
	if v.plan.awaits(facts.AnswerEvent) {
		why = "shows as dropped until " + facts.AnswerEvent + " is attached: once a rule rejects"
	}
	const rest = event.OutcomeIngressOther
	return []lack{
		{when: !v.freed, need: event.NeedTimeWait, hook: frees, shows: nothing,
			why: whyNoFrees},
		{when: v.freed && !v.socket && !v.plan.Attaches(timeWait), need: event.NeedTimeWait,
			hook: timeWait, shows: passed, why: timeWait + notHooked},
		{when: !v.freed, of: rest, hook: frees, shows: nothing, why: whyNoFrees},
		{when: v.freed && !v.whose(), of: rest, hook: frees, shows: nothing,
			why: whyNoSocket, part: "freed by TCP without a reason"},
		{when: unwatched && v.tellsFirewall(), need: event.NeedAnswers,
			of: event.OutcomeIngressNetfilterReject, hook: facts.AnswerEvent, shows: own,
			why: why, part: "rejected with an RST"},
		{when: unwatched, need: event.NeedAnswers, of: event.OutcomeIngressOtherRefused,
			hook: facts.AnswerEvent, shows: own, why: why,
			part: "answered by an ICMP error"},
	}
}
