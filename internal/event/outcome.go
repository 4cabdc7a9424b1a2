package event

import "strings"

// Outcome is a branch of the kernel's listen path as the BPF programs prove it:
// the exact set of counters that moved while one packet was handled. Its order
// is the order of OUTCOME_* in bpf/event.h; a test holds the two together.
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
	Function string    // kernel function that took the branch; "v4" in it is "v6" for IPv6 packets
	Counters []Counter // exactly the counters of the closed list that move
}

var branches = [NumOutcomes]Branch{
	OutcomeSynAcceptQueueFull: {KindDrop, CauseAcceptQueueFull, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterListenOverflows, CounterListenDrops}},
	// tcp_syn_flood_action runs first: the SYN queue was full too and a cookie
	// was decided on, though none leaves.
	OutcomeSynAcceptQueueFullCookies: {KindDrop, CauseAcceptQueueFull, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenOverflows, CounterListenDrops}},
	OutcomeSynQueueFull: {KindDrop, CauseSynQueueFull, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDrop, CounterListenDrops}},
	OutcomeSynOther: {KindDrop, CauseKernelOther, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterListenDrops}},
	OutcomeSynOtherCookies: {KindDrop, CauseKernelOther, StageSyn, ActionDropped, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterListenDrops}},
	OutcomeSynCookieSent: {KindCookie, CauseUnknown, StageSyn, ActionUnknown, "tcp_conn_request",
		[]Counter{CounterTCPReqQFullDoCookies, CounterSyncookiesSent}},
	OutcomeSynFastopenQueueFull: {KindDrop, CauseFastopenQueueFull, StageSyn, ActionIgnored, "tcp_try_fastopen",
		[]Counter{CounterTCPFastOpenListenOverflow}},
	OutcomeAckAcceptQueueFull: {KindDrop, CauseAcceptQueueFull, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenOverflows, CounterListenDrops}},
	OutcomeAckAcceptQueueFullReset: {KindDrop, CauseAcceptQueueFull, StageAck, ActionReset, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenOverflows, CounterListenDrops, CounterEmbryonicRsts}},
	OutcomeAckAcceptQueueFullCookie: {KindDrop, CauseAcceptQueueFull, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterSyncookiesRecv, CounterListenOverflows, CounterListenDrops}},
	OutcomeAckOther: {KindDrop, CauseKernelOther, StageAck, ActionDropped, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops}},
	OutcomeAckOtherReset: {KindDrop, CauseKernelOther, StageAck, ActionReset, "tcp_v4_syn_recv_sock",
		[]Counter{CounterListenDrops, CounterEmbryonicRsts}},
	OutcomeAckOtherCookie: {KindDrop, CauseKernelOther, StageAck, ActionDropped, "cookie_v4_check",
		[]Counter{CounterSyncookiesRecv, CounterListenDrops}},
	OutcomeAckCookieInvalid: {KindDrop, CauseCookieInvalid, StageAck, ActionReset, "cookie_v4_check",
		[]Counter{CounterSyncookiesFailed}},
	OutcomeAckCookieAccepted: {KindAccepted, CauseUnknown, StageAck, ActionUnknown, "cookie_v4_check",
		[]Counter{CounterSyncookiesRecv}},
	OutcomeAckDeferAccept: {KindDrop, CauseDeferAccept, StageAck, ActionIgnored, "tcp_check_req",
		[]Counter{CounterTCPDeferAcceptDrop}},
	OutcomeAckBadRst: {KindDrop, CauseBadHandshakeAck, StageAck, ActionDropped, "tcp_check_req",
		[]Counter{CounterEmbryonicRsts}},
	OutcomeAckBadReset: {KindDrop, CauseBadHandshakeAck, StageAck, ActionReset, "tcp_check_req",
		[]Counter{CounterEmbryonicRsts}},
	OutcomeICMPError: {KindDrop, CauseICMPError, StageAck, ActionDropped, "tcp_req_err",
		[]Counter{CounterListenDrops}},
}

// Branch returns what the outcome means; the zero Branch for unknown ones.
func (o Outcome) Branch() Branch {
	if o >= NumOutcomes {
		return Branch{}
	}
	return branches[o]
}

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

// CounterNames returns the counters as nstat prints them.
func (b Branch) CounterNames() []string {
	names := make([]string, len(b.Counters))
	for i, c := range b.Counters {
		names[i] = c.String()
	}
	return names
}
