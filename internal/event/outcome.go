// SPDX-License-Identifier: Apache-2.0

package event

import (
	"slices"
	"strings"
)

// Outcome is one way for a handshake to die as the BPF programs tell it: in the
// listen path the exact set of counters that moved while one packet was handled,
// elsewhere the place and reason of its end. Its order is the order of OUTCOME_* in
// bpf/event.h; a test holds the two together.
type Outcome uint8

// The outcomes. Several may share a cause: what differs is which counters
// moved with it, and the ledger needs every one of them.
const (
	OutcomeNone Outcome = iota
	OutcomeSynAcceptQueueFull
	OutcomeSynAcceptQueueFullCookies
	OutcomeSynQueueFull
	OutcomeSynOther
	OutcomeSynOtherCookies
	OutcomeSynCookieSent
	OutcomeSynFastopenQueueFull
	OutcomeAckAcceptQueueFull
	OutcomeAckAcceptQueueFullReset
	OutcomeAckAcceptQueueFullCookie
	OutcomeAckOther
	OutcomeAckOtherReset
	OutcomeAckOtherCookie
	OutcomeAckCookieInvalid
	OutcomeAckCookieAccepted
	OutcomeAckDeferAccept
	OutcomeAckBadRst
	OutcomeAckBadReset
	OutcomeICMPError
	OutcomeSynBacklogReserve
	OutcomeSynNoRouteBack
	OutcomeSynNoRouteBackCookies
	OutcomeSynDeniedByLSM
	OutcomeSynDeniedByLSMCookies
	OutcomeSynBadSynAddress
	OutcomeSynBadSynFlags
	OutcomeSynAuthFailed
	OutcomeSynSocketFilter
	OutcomeSynOtherFreed
	OutcomeAckNoRouteBack
	OutcomeAckNoRouteBackReset
	OutcomeAckNoRouteBackCookie
	OutcomeAckNoRouteBackCookieEarly
	OutcomeAckDeniedByLSMCookie
	OutcomeAckOtherCookieEarly
	OutcomeAckBadQuiet
	OutcomeAckBadAnswered
	OutcomeAckAuthFailed
	OutcomeAckSocketFilter
	OutcomeAckOtherFreed
	OutcomeAckOtherAnswered
	OutcomeAckListenerClosed
	OutcomeTimerHandshakeExpired
	OutcomeTimerListenerClosed
	OutcomeCloseListenerClosed
	OutcomeIngressNoListener
	OutcomeIngressTimeWait
	OutcomeIngressTimeWaitPAWS
	OutcomeIngressOtherConnection
	OutcomeIngressNetfilter
	OutcomeIngressNetfilterReject
	OutcomeIngressRPFilter
	OutcomeIngressChecksum
	OutcomeIngressCPUBacklog
	OutcomeIngressPolicy
	OutcomeIngressOther
	OutcomeIngressOtherRefused
	NumOutcomes
)

// Kind says what becomes of an outcome: a drop record, a cookie record, or
// nothing but its place in the ledger.
type Kind uint8

// The kinds.
const (
	KindNone Kind = iota
	KindDrop
	KindCookie
	KindAccepted
)

// Branch is what an outcome means to users.
type Branch struct {
	Kind     Kind
	Cause    Cause
	Stage    Stage
	Action   Action
	Function string    // kernel function that took the branch, empty where the record has its address; "v4" in it is "v6" for IPv6 packets
	Counters []Counter // exactly the counters of the closed list that move
	Needs    Need      // what else tells it; 0: its counters alone
}

// Need is what tells a branch beside the counters that move, or where none does.
type Need uint16

// The needs.
const (
	NeedPacket Need = 1 << iota // what the packet itself says: its flags, whom it was sent to
	NeedQueue                   // how long the SYN queue is just after
	NeedRoutes                  // the counter of routes that are missing
	NeedLSM                     // what a security module answered
	NeedReturn                  // what the function returned
	NeedReason                  // why kfree_skb says that it frees, or who
	NeedSocket                  // the socket that kfree_skb tells
)

// ByCounters reports whether the counters that moved alone tell the branch.
func (b *Branch) ByCounters() bool { return len(b.Counters) > 0 && b.Needs == 0 }

var branches = [NumOutcomes]Branch{
	OutcomeSynAcceptQueueFull: {KindDrop, CauseAcceptQueueFull, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterListenOverflows, CounterListenDrops}, 0},
	// tcp_syn_flood_action runs first: the SYN queue was full too and a cookie
	// was decided on, though none leaves.
	OutcomeSynAcceptQueueFullCookies: {KindDrop, CauseAcceptQueueFull, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenOverflows, CounterListenDrops},
		0},
	OutcomeSynQueueFull: {KindDrop, CauseSynQueueFull, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDrop, CounterListenDrops}, 0},
	OutcomeSynOther: {KindDrop, CauseKernelOther, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterListenDrops}, 0},
	OutcomeSynOtherCookies: {KindDrop, CauseKernelOther, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenDrops}, 0},
	OutcomeSynCookieSent: {KindCookie, CauseUnknown, StageSyn, ActionUnknown, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterSyncookiesSent}, 0},
	OutcomeSynFastopenQueueFull: {KindDrop, CauseFastopenQueueFull, StageSyn, ActionIgnored, "tcp_try_fastopen",
		[]Counter{CounterTCPFastOpenListenOverflow}, 0},
	OutcomeAckAcceptQueueFull: {KindDrop, CauseAcceptQueueFull, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenOverflows, CounterListenDrops}, 0},
	OutcomeAckAcceptQueueFullReset: {KindDrop, CauseAcceptQueueFull, StageAck, ActionReset, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenOverflows, CounterListenDrops, CounterEmbryonicRsts}, 0},
	OutcomeAckAcceptQueueFullCookie: {KindDrop, CauseAcceptQueueFull, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterSyncookiesRecv, CounterListenOverflows, CounterListenDrops}, 0},
	OutcomeAckOther: {KindDrop, CauseKernelOther, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops}, 0},
	OutcomeAckOtherReset: {KindDrop, CauseKernelOther, StageAck, ActionReset, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops, CounterEmbryonicRsts}, 0},
	OutcomeAckOtherCookie: {KindDrop, CauseKernelOther, StageAck, ActionDropped, "cookie_v4_check",
		[]Counter{CounterSyncookiesRecv, CounterListenDrops}, 0},
	OutcomeAckCookieInvalid: {KindDrop, CauseCookieInvalid, StageAck, ActionReset, "cookie_v4_check",
		[]Counter{CounterSyncookiesFailed}, 0},
	OutcomeAckCookieAccepted: {KindAccepted, CauseUnknown, StageAck, ActionUnknown, "cookie_v4_check",
		[]Counter{CounterSyncookiesRecv}, 0},
	OutcomeAckDeferAccept: {KindDrop, CauseDeferAccept, StageAck, ActionIgnored, "tcp_check_req",
		[]Counter{CounterTCPDeferAcceptDrop}, 0},
	OutcomeAckBadRst: {KindDrop, CauseBadHandshakeAck, StageAck, ActionDropped, "tcp_check_req",
		[]Counter{CounterEmbryonicRsts}, NeedPacket},
	OutcomeAckBadReset: {KindDrop, CauseBadHandshakeAck, StageAck, ActionReset, "tcp_check_req",
		[]Counter{CounterEmbryonicRsts}, 0},
	OutcomeICMPError: {KindDrop, CauseICMPError, StageAck, ActionDropped, "tcp_req_err",
		[]Counter{CounterListenDrops}, 0},

	OutcomeSynBacklogReserve: {KindDrop, CauseSynBacklogReserve, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterListenDrops}, NeedQueue},
	OutcomeSynNoRouteBack: {KindDrop, CauseNoRouteBack, StageSyn, ActionDropped, "tcp_v4_route_req",
		[]Counter{CounterListenDrops}, NeedRoutes},
	OutcomeSynNoRouteBackCookies: {KindDrop, CauseNoRouteBack, StageSyn, ActionDropped, "tcp_v4_route_req",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenDrops}, NeedRoutes},
	OutcomeSynDeniedByLSM: {KindDrop, CauseDeniedByLSM, StageSyn, ActionDropped, "security_inet_conn_request",
		[]Counter{CounterListenDrops}, NeedLSM},
	OutcomeSynDeniedByLSMCookies: {KindDrop, CauseDeniedByLSM, StageSyn, ActionDropped, "security_inet_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenDrops}, NeedLSM},
	OutcomeSynBadSynAddress: {KindDrop, CauseBadSyn, StageSyn, ActionDropped, "tcp_v4_conn_request",
		[]Counter{CounterListenDrops}, NeedPacket},
	OutcomeSynBadSynFlags: {KindDrop, CauseBadSyn, StageSyn, ActionDropped,
		"tcp_rcv_state_process", nil, NeedReason},
	OutcomeSynAuthFailed: {KindDrop, CauseAuthFailed, StageSyn, ActionDropped,
		"tcp_v4_rcv", nil, NeedReason},
	OutcomeSynSocketFilter: {KindDrop, CauseSocketFilter, StageSyn, ActionDropped,
		"tcp_v4_rcv", nil, NeedReason},
	OutcomeSynOtherFreed: {KindDrop, CauseKernelOther, StageSyn, ActionDropped, "", nil, 0},

	OutcomeAckNoRouteBack: {KindDrop, CauseNoRouteBack, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops}, NeedRoutes},
	OutcomeAckNoRouteBackReset: {KindDrop, CauseNoRouteBack, StageAck, ActionReset, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops, CounterEmbryonicRsts}, NeedRoutes},
	OutcomeAckNoRouteBackCookie: {KindDrop, CauseNoRouteBack, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterSyncookiesRecv, CounterListenDrops}, NeedRoutes},
	// cookie_v4_check looks for the route itself, before any child is made.
	OutcomeAckNoRouteBackCookieEarly: {KindDrop, CauseNoRouteBack, StageAck, ActionDropped, "cookie_v4_check",
		[]Counter{CounterSyncookiesRecv}, NeedRoutes},
	OutcomeAckDeniedByLSMCookie: {KindDrop, CauseDeniedByLSM, StageAck, ActionDropped, "security_inet_conn_request",
		[]Counter{CounterSyncookiesRecv}, NeedLSM},
	OutcomeAckOtherCookieEarly: {KindDrop, CauseKernelOther, StageAck, ActionDropped, "cookie_v4_check",
		[]Counter{CounterSyncookiesRecv}, NeedReturn},
	OutcomeAckBadQuiet: {KindDrop, CauseBadHandshakeAck, StageAck, ActionDropped,
		"tcp_check_req", nil, 0},
	OutcomeAckBadAnswered: {KindDrop, CauseBadHandshakeAck, StageAck, ActionReset,
		"tcp_v4_send_reset", nil, 0},
	OutcomeAckAuthFailed: {KindDrop, CauseAuthFailed, StageAck, ActionDropped,
		"tcp_v4_rcv", nil, NeedReason | NeedSocket},
	OutcomeAckSocketFilter: {KindDrop, CauseSocketFilter, StageAck, ActionDropped,
		"tcp_v4_rcv", nil, NeedReason | NeedSocket},
	OutcomeAckOtherFreed: {KindDrop, CauseKernelOther, StageAck, ActionDropped, "", nil, 0},
	// Its own listener may have closed, where that is not seen.
	OutcomeAckOtherAnswered: {KindDrop, CauseKernelOther, StageAck, ActionReset, "", nil, 0},
	OutcomeAckListenerClosed: {KindDrop, CauseListenerClosed, StageAck, ActionReset,
		"tcp_v4_rcv", nil, 0},

	OutcomeTimerHandshakeExpired: {KindDrop, CauseHandshakeExpired, StageTimer, ActionDropped,
		"reqsk_timer_handler", nil, 0},
	// Nothing is sent now: whatever the client sends next is answered by an RST.
	OutcomeTimerListenerClosed: {KindDrop, CauseListenerClosed, StageTimer, ActionReset,
		"reqsk_timer_handler", nil, 0},
	OutcomeCloseListenerClosed: {KindDrop, CauseListenerClosed, StageClose, ActionReset,
		"inet_csk_listen_stop", nil, 0},

	OutcomeIngressNoListener: {KindDrop, CauseNoListener, StageIngress, ActionReset,
		"tcp_v4_rcv", nil, NeedReason},
	OutcomeIngressTimeWait: {KindDrop, CauseTimeWait, StageIngress, ActionDropped,
		"tcp_timewait_state_process", nil, 0},
	OutcomeIngressTimeWaitPAWS: {KindDrop, CauseTimeWait, StageIngress, ActionDropped,
		"tcp_timewait_state_process", nil, 0},
	OutcomeIngressOtherConnection: {KindDrop, CauseKernelOther, StageIngress, ActionDropped,
		"tcp_validate_incoming", nil, NeedReason},
	OutcomeIngressNetfilter: {KindDrop, CauseNetfilter, StageIngress, ActionDropped,
		"nf_hook_slow", nil, NeedReason},
	OutcomeIngressNetfilterReject: {KindDrop, CauseNetfilter, StageIngress, ActionReset,
		"nf_hook_slow", nil, 0},
	OutcomeIngressRPFilter: {KindDrop, CauseRPFilter, StageIngress, ActionDropped,
		"ip_rcv_finish_core", nil, NeedReason},
	OutcomeIngressChecksum: {KindDrop, CauseChecksum, StageIngress, ActionDropped,
		"", nil, NeedReason},
	OutcomeIngressCPUBacklog: {KindDrop, CauseCPUBacklog, StageIngress, ActionDropped,
		"enqueue_to_backlog", nil, NeedReason},
	OutcomeIngressPolicy: {KindDrop, CausePolicy, StageIngress, ActionDropped,
		"", nil, NeedReason},
	OutcomeIngressOther: {KindDrop, CauseKernelOther, StageIngress, ActionDropped,
		"", nil, 0},
	OutcomeIngressOtherRefused: {KindDrop, CauseKernelOther, StageIngress, ActionReset,
		"", nil, 0},
}

// Branch returns what the outcome means; the zero Branch for unknown ones.
func (o Outcome) Branch() Branch {
	if o >= NumOutcomes {
		return Branch{}
	}
	return branches[o]
}

// SeesUnreachable is what a client sees whose SYN an ICMP error answers that is not "port unreachable",
// which it takes for an RST: "No route to host", "Network is unreachable" or the like.
const SeesUnreachable = "unreachable"

// Sees predicts what the client sees, empty where nothing can be said.
func (b Branch) Sees() string {
	switch {
	case b.Action == ActionIgnored, b.Stage == StageTimer, b.Kind != KindDrop:
		return ""
	case b.Action == ActionReset && (b.Stage == StageSyn || b.Stage == StageIngress):
		return "refused"
	case b.Action == ActionReset:
		return "reset"
	case b.Cause == CauseBadHandshakeAck, b.Cause == CauseICMPError:
		return ""
	case b.Stage == StageAck:
		return "stalled"
	default:
		return "timeout"
	}
}

// FunctionFor returns the kernel function for packets of that family.
func (b Branch) FunctionFor(v6 bool) string {
	if v6 {
		return strings.Replace(b.Function, "_v4_", "_v6_", 1)
	}
	return b.Function
}

// namesOfCounters are the counters of each outcome, as nstat prints them.
var namesOfCounters = func() (all [NumOutcomes][]string) {
	for o := range all {
		for _, c := range branches[o].Counters {
			all[o] = append(all[o], c.String())
		}
		all[o] = slices.Clip(all[o])
	}
	return all
}()

// CounterNames returns the counters of the outcome's branch, as nstat prints them. The caller may append to them, but must not
// write to them.
func (o Outcome) CounterNames() []string {
	if o >= NumOutcomes {
		return nil
	}
	return namesOfCounters[o]
}

// StagesOf lists the stages that a cause happens at; none where no branch is told apart for it.
func StagesOf(cause Cause) (stages []Stage) {
	var at [NumStages]bool
	for _, b := range branches {
		if b.Kind == KindDrop && b.Cause == cause {
			at[b.Stage%NumStages] = true
		}
	}
	for stage, yes := range at {
		if yes {
			stages = append(stages, Stage(stage))
		}
	}
	return stages
}

// CountersOf lists the counters of the closed list that a packet of this cause, stage and action is sure to have moved,
// whichever branch it took.
func CountersOf(cause Cause, stage Stage, action Action) (counters []Counter) {
	first := true
	for _, b := range branches {
		if b.Kind == KindNone || b.Kind == KindAccepted || b.Cause != cause || b.Stage != stage || b.Action != action {
			continue
		}
		if first {
			counters, first = slices.Clone(b.Counters), false
		}
		counters = slices.DeleteFunc(counters, func(c Counter) bool { return !slices.Contains(b.Counters, c) })
	}
	return counters
}
