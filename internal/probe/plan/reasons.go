// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/reason"
)

// reasoned is a death that moves no counter of the ledger: the drop reason says what
// it was, or, on kernels that tell none, maybe the function that frees.
type reasoned struct {
	outcome event.Outcome
	cause   event.Cause
	stage   event.Stage
	needs   event.Need
	part    string
	shared  bool // see event.Reason
}

// byReason lists them, from the table of drop reasons.
func byReason() []reasoned {
	var all []reasoned
	for _, r := range event.Reasons() {
		for _, o := range []event.Outcome{r.Outcomes.Syn, r.Outcomes.Ack} {
			branch := o.Branch()
			d := reasoned{o, branch.Cause, branch.Stage, branch.Needs, r.Part, r.Shared}
			if branch.Needs&event.NeedReason != 0 && !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b reasoned) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), cmp.Compare(a.stage, b.stage))
	})
	return all
}

// reasonless lists those that nothing tells here, and what they show as.
func (v *view) reasonless() (list []lack) {
	all := byReason()
	for i, d := range all {
		l := lack{when: true, of: d.outcome, hook: frees, shows: v.shows(d),
			why: v.unreasoned(d), part: d.part}
		if i+1 < len(all) && v.same(d, all[i+1]) {
			l.part = "" // the whole cause, rather than each part of it
		}
		switch {
		case l.why == "", i > 0 && v.same(all[i-1], d):
		case l.why == whyNoFrees && d.cause == event.CauseKernelOther: // see unseen
		case l.why == whyNoReasons && v.path && d.cause == event.CauseNoListener:
			list = append(list, v.unanswered(l)...)
		default:
			list = append(list, l)
		}
	}
	return list
}

// same reports whether both parts of a cause are told as little.
func (v *view) same(a, b reasoned) bool {
	return a.cause == b.cause && a.stage == b.stage && v.unreasoned(a) == v.unreasoned(b) &&
		v.shows(a) == v.shows(b)
}

// unanswered lists packets to no listener where only the functions that answer them
// tell, and one is not hooked.
func (v *view) unanswered(l lack) (list []lack) {
	for _, f := range facts.Deaths() {
		if strings.HasSuffix(f.Name, "_send_reset") && !v.plan.Attaches(f.Name) {
			l.hook, l.part, l.why = f.Name, f.Part, f.Name+notHooked
			list = append(list, l)
		}
	}
	return list
}

// unreasoned says why it is not told; empty if it is.
func (v *view) unreasoned(d reasoned) string {
	switch {
	case !v.freed:
		return whyNoFrees
	case d.needs&event.NeedSocket != 0 && !v.socket:
		return whyNoSocket
	case v.reasons && v.names(d):
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

// shows is what it shows as when nothing tells it: see judge_freed in bpf/kfree_skb.h.
func (v *view) shows(d reasoned) string {
	switch {
	case d.needs&event.NeedSocket != 0 && v.freed && v.socket:
		// A packet that its handshake did not take.
		return event.CauseBadHandshakeAck.String()
	case !v.freed, d.needs&event.NeedSocket != 0,
		d.cause == event.CauseCPUBacklog,  // nothing else tells that it came in
		d.cause == event.CauseKernelOther, // ended in __kfree_skb, without an event
		d.cause == event.CauseBadSyn && !v.socket,
		(d.shared || v.split && !v.reasons) && !v.whose():
		return nothing
	}
	return other
}

// names reports whether the kernel has a drop reason that says it.
func (v *view) names(d reasoned) bool {
	for name := range v.facts.Reasons {
		r, _ := event.ReasonLike(strings.TrimPrefix(name, reason.Prefix))
		if r.Part == d.part && (r.Outcomes.Syn == d.outcome || r.Outcomes.Ack == d.outcome) {
			return true
		}
	}
	return false
}

// placed reports whether a free by this function is known as such without a reason.
func (v *view) placed(function string) bool { return len(v.facts.Code[function]) > 0 && !v.split }

// tellsFirewall reports whether netfilter's drops are known.
func (v *view) tellsFirewall() bool {
	if v.reasons {
		return v.freed && v.facts.Reasons[reason.Prefix+"NETFILTER_DROP"] > 0
	}
	// Later, others free there as well.
	return v.freed && v.placed("nf_hook_slow") && v.facts.Tracepoints["kfree_skb"] < facts.ReasonArgs
}

// tellsEveryReset reports whether RSTs that no socket sends are seen by the tracepoint.
func (v *view) tellsEveryReset() bool {
	return v.plan.Attaches("tcp_send_reset") && v.facts.Tracepoints["tcp_send_reset"] >= facts.AnyResetArgs
}
