// SPDX-License-Identifier: Apache-2.0

// Package reason says which drop reasons the kernel's functions stand for that free packets. What a
// reason means for a handshake is in [event.Reasons].
package reason

// Prefix starts every enumerator of the kernel's enum skb_drop_reason.
const Prefix = "SKB_DROP_REASON_"

// HookSlow of netfilter runs what is hooked; who calls it is the hook.
const HookSlow = "nf_hook_slow"

// queueFunctions free what no program reads from a queue of netfilter's (NFQUEUE), and what the one that does
// refuses, the last since 6.11. No kernel tells a reason.
func queueFunctions() []string { return []string{"nf_queue", "nf_reinject", "nfqnl_reinject"} }

// OfFunctions are what functions free for that free for one reason alone, or for none that
// their place tells.
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

func ACKFreers() []string {
	return []string{"tcp_v4_rcv", "tcp_v6_rcv", "tcp_v4_do_rcv", "tcp_v6_do_rcv",
		"cookie_v4_check",
		"cookie_v6_check", "tcp_rcv_state_process"}
}
