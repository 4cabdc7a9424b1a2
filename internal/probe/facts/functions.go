// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/reason"
)

// Function is a kernel function, or a tracepoint, that may be hooked.
type Function struct {
	Name string
	Core bool       // without it the listen path is not seen
	Why  string     // what is not seen without it
	Part string     // which of its causes' deaths those are; empty: all
	With string     // a function of the same subsystem; without both the kernel has none
	At   event.Need // the branches whose counters are found moved at its end; 0: none
}

// ListenPath holds every function in which the closed list's counters move.
// Which one calls tcp_v4_syn_recv_sock does not matter: it runs inside.
func ListenPath() []Function {
	return []Function{
		{Name: "tcp_v4_conn_request", Core: true, Why: "SYNs over IPv4", Part: "IPv4", At: event.AtSyn},
		{Name: "tcp_v6_conn_request", Why: "SYNs over IPv6", Part: "IPv6", At: event.AtSyn},
		{Name: "subflow_v4_conn_request", Why: "SYNs to MPTCP listeners over IPv4",
			Part: "MPTCP over IPv4", With: Mptcp, At: event.AtSyn},
		{Name: "subflow_v6_conn_request", Why: "SYNs to MPTCP listeners over IPv6",
			Part: "MPTCP over IPv6", With: Mptcp, At: event.AtSyn},
		{Name: "tcp_check_req", Core: true, Why: "handshake ACKs", At: event.AtAck},
		{Name: "cookie_v4_check", Why: "ACKs of SYN cookies over IPv4",
			Part: "SYN cookies over IPv4", At: event.AtCookie},
		{Name: "cookie_v6_check", Why: "ACKs of SYN cookies over IPv6",
			Part: "SYN cookies over IPv6", At: event.AtCookie},
		{Name: "tcp_req_err", Why: "ICMP errors to half-open handshakes", At: event.AtICMP},
	}
}

// Mptcp is a function that every kernel with MPTCP has, and tells of in its types.
const Mptcp = "mptcp_get_options"

// FreeEvents are the tracepoints that see the same from outside.
func FreeEvents() []Function {
	return []Function{
		{Name: "consume_skb", Core: true, Why: "SYNs"},
		{Name: "kfree_skb", Core: true, Why: "handshake ACKs"},
		{Name: "inet_sock_set_state", Core: true, Why: "handshakes that succeed"},
	}
}

// SYNFreers are the functions that free a SYN once it is settled.
func SYNFreers() []string { return []string{"tcp_rcv_state_process"} }

// ICMPFreers are the functions that free an ICMP error once it is settled.
func ICMPFreers() []string { return []string{"icmp_rcv", "icmpv6_rcv"} }

// The functions that connections go through from the accept queue to a process.
const (
	EnqueueFunction = "inet_csk_reqsk_queue_add"
	AcceptFunction  = "inet_csk_accept"
	GraftFunction   = "security_sock_graft"
)

// AnswerAgain is the tracepoint that sees SYN-ACKs being sent again.
const AnswerAgain = "tcp_retransmit_synack"

// AcceptSide lists functions that are hooked for Config.Accepts alone, and can be done without.
func AcceptSide() []Function {
	return []Function{
		{Name: EnqueueFunction, Why: "which connections of Fast Open enter the accept queues"},
		{Name: AcceptFunction,
			Why: "accepts, when each process last accepted, and time spent in the accept queue"},
		{Name: GraftFunction, Why: "the first accept of a task that already slept in accept()"},
	}
}

// SleeperFunctions came with "bpf: Fix fexit trampoline" (5.12, and some stable
// updates before), which keeps the exit's trampoline until the last task left it.
func SleeperFunctions() []string {
	return []string{"__bpf_tramp_exit",
		"__bpf_tramp_image_release"}
}

// RequestTimer is the function of every half-open handshake's timer.
const RequestTimer = "reqsk_timer_handler"

// RejectFunction is netfilter's answer to a TCP packet that it rejects, often in a
// module of its own.
const RejectFunction = "nf_send_reset"

// TimerEvents are the tracepoints around every timer that expires.
func TimerEvents() []string { return []string{"timer_expire_entry", "timer_expire_exit"} }

// The drop of a half-open handshake whose listener has closed: by its function, or by
// its timer, which is stopped.
const (
	GoneFunction = "inet_csk_reqsk_queue_drop_and_put"
	GoneEvent    = "timer_cancel"
)

// Deaths are functions that tell of ends which move no counter of the listen path.
func Deaths() []Function {
	return []Function{
		{Name: RequestTimer, Why: "handshakes that expire"},
		{Name: GoneFunction, Why: "handshake ACKs whose listener has closed"},
		{Name: "tcp_timewait_state_process", Why: "SYNs that a TIME_WAIT socket refuses"},
		{Name: "tcp_v4_send_reset", Why: "which IPv4 packets an RST answered", Part: "IPv4"},
		{Name: "tcp_v6_send_reset", Why: "which IPv6 packets an RST answered", Part: "IPv6"},
		{Name: "security_inet_conn_request", Why: "refusals of a security module"},
	}
}

// AnswerEvent is where every packet that is sent passes, and the answers of netfilter's REJECT.
const AnswerEvent = "net_dev_queue"

// ListenHook is a second hook at the tracepoint of state changes: it sees listeners open and close.
const ListenHook = "inet_sock_set_state (listen)"

// ListenFunction and its like see the same. A connection passes the tracepoint some ten times, and
// these functions never.
const ListenFunction = "inet_csk_listen_start"

// QueueFunction is where MPTCP closes what was queued, before its listener stops.
const QueueFunction = "mptcp_subflow_queue_clean"

// ListenFunctions lists them.
func ListenFunctions() []string {
	return []string{ListenFunction, "inet_csk_listen_stop", QueueFunction}
}

// SockFromFile is a helper of iterators: 5.11.
const SockFromFile = "bpf_sock_from_file"

// PlacedFunctions lists the functions whose code addresses are needed.
func PlacedFunctions() []string {
	names := append(append(SYNFreers(), ICMPFreers()...), RequestTimer, RejectFunction)
	for name := range reason.OfFunctions() {
		names = append(names, name)
	}
	names = append(names, SleeperFunctions()...)
	return append(append(names, namesOf(ListenPath(), Deaths(), AcceptSide())...), "kfree_skb")
}

func hookedFunctions() []string {
	names := append(namesOf(ListenPath(), Deaths(), AcceptSide()),
		append(SleeperFunctions(), ListenFunctions()...)...)
	return append(names, Mptcp, "bpf_iter_task_file", SockFromFile)
}

func hookedTracepoints() []string {
	return append(append(namesOf(FreeEvents()), TimerEvents()...), GoneEvent, AnswerAgain,
		"tcp_send_reset", AnswerEvent)
}

func namesOf(lists ...[]Function) []string {
	var names []string
	for _, f := range slices.Concat(lists...) {
		names = append(names, f.Name)
	}
	return names
}

// Twin ends the name of a twin, see seen_before in bpf/skb.h.
const Twin = "_twin"

// RegistersFunction is the helper that finds the registers with which a thread entered the kernel:
// 5.15.
const RegistersFunction = "bpf_task_pt_regs"

// SysAccept is what accept() and accept4() call. io_uring does not (io_accept).
const SysAccept = "__sys_accept4"
