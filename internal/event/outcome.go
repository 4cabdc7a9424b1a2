// SPDX-License-Identifier: Apache-2.0

package event

import (
	"slices"
	"strings"
)

// Outcome is one way for a handshake to die as the BPF programs tell it: in the
// listen path the exact set of counters that moved while one packet was handled,
// elsewhere the place and reason of its end. OUTCOME_* in bpf/outcomes.h are made from
// these; those before a listener are neighbours.
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
	Needs    Need      // what tells it
}

// Need is what tells a branch. What a kernel or a plan of hooks does without shows as something
// else: internal/probe/blind.go says as what.
type Need uint32

// The needs. The first are where counters are found moved: hooks at the ends of functions, or at
// what frees their packets.
const (
	AtSyn    Need = 1 << iota // tcp_v4_conn_request, and those for IPv6 and MPTCP
	AtAck                     // tcp_check_req
	AtCookie                  // cookie_v4_check, cookie_v6_check
	AtICMP                    // tcp_req_err

	NeedPacket   // what the packet itself says: its flags, whom it was sent to
	NeedReturn   // what the function returned
	NeedQueue    // how long the SYN queue is just after
	NeedRoutes   // the counter of routes that are missing
	NeedLSM      // what a security module answered
	NeedFrees    // kfree_skb
	NeedReason   // why that frees, or who
	NeedSocket   // the socket that it tells
	NeedListener // whose a packet was that TCP frees: hooks before that, or the socket
	NeedResets   // which packets an RST answers
	NeedAnswers  // what is sent without a socket
	NeedTimeWait // the socket, or tcp_timewait_state_process
	NeedGone     // handshakes that are dropped for a listener that is gone
	NeedTimer    // the timer of half-open handshakes
	NeedClose    // listeners that close

	at = AtSyn | AtAck | AtCookie | AtICMP
)

// ByCounters reports whether the counters that moved there alone tell the branch.
func (b *Branch) ByCounters() bool { return b.Needs != 0 && b.Needs&^at == 0 }

// At returns where the branch's counters are found moved; 0 where none moves.
func (b *Branch) At() Need { return b.Needs & at }

var branches = [NumOutcomes]Branch{
	OutcomeSynAcceptQueueFull: {KindDrop, CauseAcceptQueueFull, StageSyn, ActionDropped,
		"tcp_conn_request",
		[]Counter{CounterListenOverflows, CounterListenDrops}, AtSyn},
	// tcp_syn_flood_action runs first: the SYN queue was full too and a cookie
	// was decided on, though none leaves.
	OutcomeSynAcceptQueueFullCookies: {KindDrop, CauseAcceptQueueFull, StageSyn, ActionDropped,
		"tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenOverflows, CounterListenDrops},
		AtSyn},
	OutcomeSynQueueFull: {KindDrop, CauseSynQueueFull, StageSyn, ActionDropped,
		"tcp_conn_request",
		[]Counter{CounterTCPReqQFullDrop, CounterListenDrops}, AtSyn},
	OutcomeSynOther: {KindDrop, CauseKernelOther, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterListenDrops}, AtSyn},
	OutcomeSynOtherCookies: {KindDrop, CauseKernelOther, StageSyn, ActionDropped,
		"tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenDrops}, AtSyn},
	OutcomeSynCookieSent: {KindCookie, CauseUnknown, StageSyn, ActionUnknown,
		"tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterSyncookiesSent}, AtSyn},
	OutcomeSynFastopenQueueFull: {KindDrop, CauseFastopenQueueFull, StageSyn, ActionIgnored,
		"tcp_try_fastopen",
		[]Counter{CounterTCPFastOpenListenOverflow}, AtSyn},
	OutcomeAckAcceptQueueFull: {KindDrop, CauseAcceptQueueFull, StageAck, ActionDropped,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterListenOverflows, CounterListenDrops}, AtAck},
	OutcomeAckAcceptQueueFullReset: {KindDrop, CauseAcceptQueueFull, StageAck, ActionReset,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterListenOverflows, CounterListenDrops, CounterEmbryonicRsts}, AtAck},
	OutcomeAckAcceptQueueFullCookie: {KindDrop, CauseAcceptQueueFull, StageAck, ActionDropped,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterSyncookiesRecv, CounterListenOverflows, CounterListenDrops},
		AtCookie},
	OutcomeAckOther: {KindDrop, CauseKernelOther, StageAck, ActionDropped,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops}, AtAck},
	OutcomeAckOtherReset: {KindDrop, CauseKernelOther, StageAck, ActionReset,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops, CounterEmbryonicRsts}, AtAck},
	OutcomeAckOtherCookie: {KindDrop, CauseKernelOther, StageAck, ActionDropped,
		"cookie_v4_check",
		[]Counter{CounterSyncookiesRecv, CounterListenDrops}, AtCookie},
	OutcomeAckCookieInvalid: {KindDrop, CauseCookieInvalid, StageAck, ActionReset,
		"cookie_v4_check",
		[]Counter{CounterSyncookiesFailed}, AtCookie},
	OutcomeAckCookieAccepted: {KindAccepted, CauseUnknown, StageAck, ActionUnknown,
		"cookie_v4_check",
		[]Counter{CounterSyncookiesRecv}, AtCookie},
	OutcomeAckDeferAccept: {KindDrop, CauseDeferAccept, StageAck, ActionIgnored,
		"tcp_check_req",
		[]Counter{CounterTCPDeferAcceptDrop}, AtAck},
	OutcomeAckBadRst: {KindDrop, CauseBadHandshakeAck, StageAck, ActionDropped, "tcp_check_req",
		[]Counter{CounterEmbryonicRsts}, AtAck | NeedPacket},
	OutcomeAckBadReset: {KindDrop, CauseBadHandshakeAck, StageAck, ActionReset, "tcp_check_req",
		[]Counter{CounterEmbryonicRsts}, AtAck},
	OutcomeICMPError: {KindDrop, CauseICMPError, StageAck, ActionDropped, "tcp_req_err",
		[]Counter{CounterListenDrops}, AtICMP},

	OutcomeSynBacklogReserve: {KindDrop, CauseSynBacklogReserve, StageSyn, ActionDropped,
		"tcp_conn_request",
		[]Counter{CounterListenDrops}, AtSyn | NeedQueue},
	OutcomeSynNoRouteBack: {KindDrop, CauseNoRouteBack, StageSyn, ActionDropped,
		"tcp_v4_route_req",
		[]Counter{CounterListenDrops}, AtSyn | NeedRoutes},
	OutcomeSynNoRouteBackCookies: {KindDrop, CauseNoRouteBack, StageSyn, ActionDropped,
		"tcp_v4_route_req",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenDrops}, AtSyn | NeedRoutes},
	OutcomeSynDeniedByLSM: {KindDrop, CauseDeniedByLSM, StageSyn, ActionDropped,
		"security_inet_conn_request",
		[]Counter{CounterListenDrops}, AtSyn | NeedLSM},
	OutcomeSynDeniedByLSMCookies: {KindDrop, CauseDeniedByLSM, StageSyn, ActionDropped,
		"security_inet_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenDrops}, AtSyn | NeedLSM},
	OutcomeSynBadSynAddress: {KindDrop, CauseBadSyn, StageSyn, ActionDropped,
		"tcp_v4_conn_request",
		[]Counter{CounterListenDrops}, AtSyn | NeedPacket},
	OutcomeSynBadSynFlags: {KindDrop, CauseBadSyn, StageSyn, ActionDropped,
		"tcp_rcv_state_process", nil, NeedFrees | NeedReason},
	OutcomeSynAuthFailed: {KindDrop, CauseAuthFailed, StageSyn, ActionDropped,
		"tcp_v4_rcv", nil, NeedFrees | NeedReason},
	OutcomeSynSocketFilter: {KindDrop, CauseSocketFilter, StageSyn, ActionDropped,
		"tcp_v4_rcv", nil, NeedFrees | NeedReason},
	OutcomeSynOtherFreed: {KindDrop, CauseKernelOther, StageSyn, ActionDropped,
		"", nil, NeedFrees | NeedListener},

	OutcomeAckNoRouteBack: {KindDrop, CauseNoRouteBack, StageAck, ActionDropped,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops}, AtAck | NeedRoutes},
	OutcomeAckNoRouteBackReset: {KindDrop, CauseNoRouteBack, StageAck, ActionReset,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops, CounterEmbryonicRsts}, AtAck | NeedRoutes},
	OutcomeAckNoRouteBackCookie: {KindDrop, CauseNoRouteBack, StageAck, ActionDropped,
		"tcp_v4_syn_recv_sock",
		[]Counter{CounterSyncookiesRecv, CounterListenDrops}, AtCookie | NeedRoutes},
	// cookie_v4_check looks for the route itself, before any child is made.
	OutcomeAckNoRouteBackCookieEarly: {KindDrop, CauseNoRouteBack, StageAck, ActionDropped,
		"cookie_v4_check",
		[]Counter{CounterSyncookiesRecv}, AtCookie | NeedRoutes},
	OutcomeAckDeniedByLSMCookie: {KindDrop, CauseDeniedByLSM, StageAck, ActionDropped,
		"security_inet_conn_request",
		[]Counter{CounterSyncookiesRecv}, AtCookie | NeedLSM},
	OutcomeAckOtherCookieEarly: {KindDrop, CauseKernelOther, StageAck, ActionDropped,
		"cookie_v4_check",
		[]Counter{CounterSyncookiesRecv}, AtCookie | NeedReturn},
	OutcomeAckBadQuiet: {KindDrop, CauseBadHandshakeAck, StageAck, ActionDropped,
		"tcp_check_req", nil, NeedFrees | NeedListener},
	OutcomeAckBadAnswered: {KindDrop, CauseBadHandshakeAck, StageAck, ActionReset,
		"tcp_v4_send_reset", nil, NeedFrees | NeedResets},
	OutcomeAckAuthFailed: {KindDrop, CauseAuthFailed, StageAck, ActionDropped,
		"tcp_v4_rcv", nil, NeedFrees | NeedReason | NeedSocket},
	OutcomeAckSocketFilter: {KindDrop, CauseSocketFilter, StageAck, ActionDropped,
		"tcp_v4_rcv", nil, NeedFrees | NeedReason | NeedSocket},
	OutcomeAckOtherFreed: {KindDrop, CauseKernelOther, StageAck, ActionDropped,
		"", nil, NeedFrees | NeedListener},
	// Its own listener may have closed, where that is not seen.
	OutcomeAckOtherAnswered: {KindDrop, CauseKernelOther, StageAck, ActionReset,
		"", nil, NeedFrees | NeedResets},
	OutcomeAckListenerClosed: {KindDrop, CauseListenerClosed, StageAck, ActionReset,
		"tcp_v4_rcv", nil, NeedFrees | NeedGone},

	OutcomeTimerHandshakeExpired: {KindDrop, CauseHandshakeExpired, StageTimer, ActionDropped,
		"reqsk_timer_handler", nil, NeedTimer},
	// Nothing is sent now: whatever the client sends next is answered by an RST.
	OutcomeTimerListenerClosed: {KindDrop, CauseListenerClosed, StageTimer, ActionReset,
		"reqsk_timer_handler", nil, NeedTimer},
	OutcomeCloseListenerClosed: {KindDrop, CauseListenerClosed, StageClose, ActionReset,
		"inet_csk_listen_stop", nil, NeedResets | NeedClose},

	OutcomeIngressNoListener: {KindDrop, CauseNoListener, StageIngress, ActionReset,
		"tcp_v4_rcv", nil, NeedFrees | NeedReason},
	OutcomeIngressTimeWait: {KindDrop, CauseTimeWait, StageIngress, ActionDropped,
		"tcp_timewait_state_process", nil, NeedFrees | NeedTimeWait},
	OutcomeIngressTimeWaitPAWS: {KindDrop, CauseTimeWait, StageIngress, ActionDropped,
		"tcp_timewait_state_process", nil, NeedFrees | NeedTimeWait},
	OutcomeIngressOtherConnection: {KindDrop, CauseKernelOther, StageIngress, ActionDropped,
		"tcp_validate_incoming", nil, NeedFrees | NeedReason},
	OutcomeIngressNetfilter: {KindDrop, CauseNetfilter, StageIngress, ActionDropped,
		"nf_hook_slow", nil, NeedFrees | NeedReason},
	OutcomeIngressNetfilterReject: {KindDrop, CauseNetfilter, StageIngress, ActionReset,
		"nf_hook_slow", nil, NeedFrees | NeedReason | NeedAnswers},
	OutcomeIngressRPFilter: {KindDrop, CauseRPFilter, StageIngress, ActionDropped,
		"ip_rcv_finish_core", nil, NeedFrees | NeedReason},
	OutcomeIngressChecksum: {KindDrop, CauseChecksum, StageIngress, ActionDropped,
		"", nil, NeedFrees | NeedReason},
	OutcomeIngressCPUBacklog: {KindDrop, CauseCPUBacklog, StageIngress, ActionDropped,
		"enqueue_to_backlog", nil, NeedFrees | NeedReason},
	OutcomeIngressPolicy: {KindDrop, CausePolicy, StageIngress, ActionDropped,
		"", nil, NeedFrees | NeedReason},
	OutcomeIngressOther: {KindDrop, CauseKernelOther, StageIngress, ActionDropped,
		"", nil, NeedFrees},
	OutcomeIngressOtherRefused: {KindDrop, CauseKernelOther, StageIngress, ActionReset,
		"", nil, NeedFrees | NeedAnswers},
}

// Branch returns what the outcome means; the zero Branch for unknown ones.
func (o Outcome) Branch() Branch {
	if o >= NumOutcomes {
		return Branch{}
	}
	return branches[o]
}

// SeesUnreachable is what a client sees whose SYN an ICMP error answers that is not "port
// unreachable", which it takes for an RST: "No route to host", "Network is unreachable" or the
// like.
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

// CounterNames returns the counters of the outcome's branch, as nstat prints them. The caller may
// append to them, but must not write to them.
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

// CountersOf lists the counters of the closed list that a packet of this cause, stage and action is
// sure to have moved, whichever branch it took.
func CountersOf(cause Cause, stage Stage, action Action) (counters []Counter) {
	first := true
	for _, b := range branches {
		if b.Kind == KindNone || b.Kind == KindAccepted || b.Cause != cause ||
			b.Stage != stage || b.Action != action {
			continue
		}
		if first {
			counters, first = slices.Clone(b.Counters), false
		}
		counters = slices.DeleteFunc(counters, func(c Counter) bool {
			return !slices.Contains(b.Counters, c)
		})
	}
	return counters
}
