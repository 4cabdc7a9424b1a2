/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* RSTs that TCP sends: for a packet, or for a connection that its closed listener had queued. */
#ifndef SYNSPY_RESET_H
#define SYNSPY_RESET_H

#include "account.h"
#include "cpu_state.h"
#include "ledger.h"
#include "maps.h"
#include "mark.h"
#include "packet.h"
#include "skb.h"

/* packet_reset is tcp_send_reset for a packet: an RST was its answer. */
static __always_inline int packet_reset(struct sock *sk, struct sk_buff *skb)
{
	struct cpu_state *cpu = this_cpu();
	struct mark *mark;

	if (!cpu || parse(cpu, skb))
		return 0;
	mark = mark_of(cpu, skb);
	mark->reset = true;
	if (sk && BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN)
		mark->sk = as_number(cpu, sk);
	return 0;
}

/* reset_queued is tcp_send_reset without a packet: a socket that is closed. Those
 * that no process ever had, reset by the task that closes their listener, were queued. */
static __always_inline int reset_queued(struct sock *child)
{
	__u64 task = bpf_get_current_pid_tgid(), *closed, sk, net;
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;
	__u16 port;

	if (!cpu || !cpu->gate || LOAD(struct sock, child, sk_socket))
		return 0;
	closed = bpf_map_lookup_elem(&closing, &task);
	if (!closed)
		return 0;
	sk = *closed;
	net = (__u64)BPF_CORE_READ(child, __sk_common.skc_net.net);
	port = bpf_ntohs(
		BPF_CORE_READ((struct inet_sock *)child, inet_sport)); /* skc_num is 0 by now */
	if (net != (__u64)BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net) ||
	    port != BPF_CORE_READ((struct sock *)sk, __sk_common.skc_num) ||
	    (filter.netns && filter.netns != netns_of(net)))
		return 0;
	tally = find_tally(cpu, net);
	if (!tally)
		return 0;
	parse_request(&cpu->packet, child);
	cpu->packet.server_port = port;
	return account_given(cpu, sk, OUTCOME_CLOSE_LISTENER_CLOSED);
}

static __always_inline int reset_sent(struct sock *sk, struct sk_buff *skb)
{
	if (skb)
		return packet_reset(sk, skb);
	return sk ? reset_queued(sk) : 0;
}

#endif
