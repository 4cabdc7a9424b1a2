// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// reasoned is a death that moves no counter of the ledger: the drop reason says what
// it was, or, on kernels that tell none, maybe the function that frees.
type reasoned struct {
	outcome event.Outcome
	cause   event.Cause
	stage   event.Stage
	part    string
	shared  bool // see event.Reason
}

// byReason lists them, from the table of drop reasons.
func byReason() []reasoned {
	var all []reasoned
	for _, r := range event.Reasons() {
		for _, o := range []event.Outcome{r.Fate.Syn, r.Fate.Ack} {
			branch := o.Branch()
			d := reasoned{o, branch.Cause, branch.Stage, r.Part, r.Shared}
			if branch.Needs&event.NeedReason != 0 && !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b reasoned) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), cmp.Compare(a.stage, b.stage),
			cmp.Compare(asNumber(a.shared), asNumber(b.shared)))
	})
	return all
}

// byReasons lists those that nothing tells here, and what they show as.
func (v *view) byReasons() {
	all := byReason()
	for i, d := range all {
		why, part := v.unreasoned(d), d.part
		if i+1 < len(all) && v.same(d, all[i+1]) {
			part = "" // the whole cause, rather than each part of it
		}
		switch {
		case why == "", i > 0 && v.same(all[i-1], d):
		case why == whyNoFrees && d.cause == event.CauseKernelOther: // said below, of all such deaths
		case why == whyNoReasons && v.path && d.cause == event.CauseNoListener:
			v.unanswered(d)
		default:
			v.add("kfree_skb", d.cause, d.stage, part, v.shows(d), why)
		}
	}
	v.timeWait()
	switch {
	case !v.freed:
		v.add("kfree_skb", event.CauseKernelOther, event.StageIngress, "", event.ShowsNothing, whyNoFrees)
	case !v.path && !v.socket:
		v.add("kfree_skb", event.CauseKernelOther, event.StageIngress, "freed by TCP without a reason", event.ShowsNothing, whyNoSocket)
	}
}

// same tells whether both parts of a cause are told as little.
func (v *view) same(a, b reasoned) bool {
	return a.cause == b.cause && a.stage == b.stage && v.unreasoned(a) == v.unreasoned(b) && v.shows(a) == v.shows(b)
}

// unanswered lists packets to no listener where only the functions that answer them
// tell, and one is not hooked.
func (v *view) unanswered(d reasoned) {
	for _, f := range deaths() {
		if strings.HasSuffix(f.name, "_send_reset") && !v.plan.hooks(f.name) {
			v.add(f.name, d.cause, d.stage, f.part, v.shows(d), f.name+" is not hooked")
		}
	}
}

// unreasoned says why it is not told; empty if it is.
func (v *view) unreasoned(d reasoned) string {
	switch {
	case !v.freed:
		return whyNoFrees
	case d.stage == event.StageAck && !v.socket:
		return whyNoSocket
	case v.reasons && v.facts.names(d):
		return ""
	case v.reasons:
		return whyNoName
	case d.cause == event.CauseNoListener && v.tellsEveryReset(),
		d.cause == event.CauseNetfilter && v.tellsFirewall(),
		d.cause == event.CauseCPUBacklog && v.placed("enqueue_to_backlog"):
		return ""
	}
	return whyNoReasons
}

// shows is what it shows as when nothing tells it: see name_death in bpf/death.h.
func (v *view) shows(d reasoned) string {
	switch {
	case !v.freed:
		return event.ShowsNothing
	case d.cause == event.CauseCPUBacklog: // nothing else tells that it came in
		return event.ShowsNothing
	case d.stage == event.StageAck && v.socket: // a packet that its handshake did not take
		return event.CauseBadHandshakeAck.String()
	case d.stage == event.StageAck:
		return event.ShowsNothing
	case d.cause == event.CauseKernelOther: // tcp_validate_incoming's packets end in __kfree_skb until they have a reason
		return event.ShowsNothing
	case d.cause == event.CauseBadSyn && !v.socket: // until TCP_FLAGS it ended in __kfree_skb, which has no event
		return event.ShowsNothing
	case (d.shared || v.split && !v.reasons) && !v.path && !v.socket: // nobody knows whose
		return event.ShowsNothing
	}
	return other
}

// names reports whether the kernel has a drop reason that says it.
func (f *Facts) names(d reasoned) bool {
	for name := range f.Reasons {
		r, _ := event.ReasonLike(strings.TrimPrefix(name, reasonPrefix))
		if r.Part == d.part && (r.Fate.Syn == d.outcome || r.Fate.Ack == d.outcome) {
			return true
		}
	}
	return false
}

// placed tells whether a free by this function is known as such without a reason.
func (v *view) placed(function string) bool { return len(v.facts.Code[function]) > 0 && !v.split }

// tellsFirewall tells whether netfilter's drops are known.
func (v *view) tellsFirewall() bool {
	if v.reasons {
		return v.freed && v.facts.Reasons[reasonPrefix+"NETFILTER_DROP"] > 0
	}
	return v.freed && v.placed("nf_hook_slow") && v.facts.Tracepoints["kfree_skb"] < reasonArgs // later, others free as well
}

// tellsEveryReset tells whether RSTs that no socket sends are seen by the tracepoint.
func (v *view) tellsEveryReset() bool {
	return v.plan.hooks("tcp_send_reset") && v.facts.Tracepoints["tcp_send_reset"] >= anyResetArgs
}

// anyResetArgs is how many arguments tcp_send_reset has once it tells of every RST, not
// only of those that a full socket sends: 6.10.
const anyResetArgs = 3

// timeWait is told by the socket or by the function that refused.
func (v *view) timeWait() {
	const function = "tcp_timewait_state_process"
	switch {
	case !v.freed:
		v.add("kfree_skb", event.CauseTimeWait, event.StageIngress, "", event.ShowsNothing, whyNoFrees)
	case v.socket || v.plan.hooks(function):
	case v.path:
		v.add(function, event.CauseTimeWait, event.StageIngress, "", other, function+" is not hooked")
	default:
		v.add(function, event.CauseTimeWait, event.StageIngress, "", event.ShowsNothing, function+" is not hooked")
	}
}
