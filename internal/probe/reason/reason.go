// SPDX-License-Identifier: Apache-2.0

// Package reason says which drop reasons the kernel's functions stand for that free packets. What a
// reason means for a handshake is in [event.Reasons].
package reason

// Prefix starts every enumerator of the kernel's enum skb_drop_reason.
const Prefix = "SKB_DROP_REASON_"

// HookSlow of netfilter runs what is hooked; who calls it is the hook.
const HookSlow = "nf_hook_slow"

// queueFunctions free packets of a netfilter queue (NFQUEUE): those that no program reads, and those
// that a program refuses (nfqnl_reinject: 6.11). No kernel tells a reason there.
func queueFunctions() []string { return []string{"nf_queue", "nf_reinject", "nfqnl_reinject"} }

// OfFunctions maps functions to the reason for which they free packets, where there is only one;
// Unspecified is that of functions which free for many.
func OfFunctions() map[string]string {
	reasons := map[string]string{
		HookSlow: "NETFILTER_DROP", "enqueue_to_backlog": "CPU_BACKLOG",
		"packet_rcv": "PACKET_SOCK_ERROR", "tpacket_rcv": "PACKET_SOCK_ERROR",
	}
	for _, name := range queueFunctions() {
		reasons[name] = "NETFILTER_DROP"
	}
	for _, name := range ACKFreers() {
		reasons[name] = Unspecified
	}
	return reasons
}

// Unspecified is the reason that says nothing.
const Unspecified = "NOT_SPECIFIED"

// ACKFreers are the functions that free a handshake's ACK once it is settled.
func ACKFreers() []string {
	return []string{"tcp_v4_rcv", "tcp_v6_rcv", "tcp_v4_do_rcv", "tcp_v6_do_rcv",
		"cookie_v4_check", "cookie_v6_check", "tcp_rcv_state_process"}
}
