/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Half-open handshakes that end without a packet: by their timer, or with their listener. Its timer
 * may free a handshake, so what it is is kept when the timer begins.
 */
#ifndef SYNSPY_REQSK_TIMER_H
#define SYNSPY_REQSK_TIMER_H

#include "account.h"
#include "cpu_state.h"
#include "ledger.h"
#include "maps.h"
#include "packet.h"
#include "skb.h"
#include "steered.h"

/* forget_dropped_request: what is freed next is not its ACK. */
static __always_inline void forget_dropped_request(struct cpu_state *cpu)
{
	cpu->dropped_request.key = 0;
}

static __always_inline struct request_sock *request_of(__u64 timer)
{
	return (struct request_sock *)(timer -
				       bpf_core_field_offset(struct request_sock, rsk_timer));
}

static __always_inline __u64 migrations_of(struct cpu_state *cpu, __u64 sk)
{
	__u64 count = 0, mib;

	if (!migrated_index)
		return 0;
	mib = (__u64)BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net, mib.net_statistics);
	bpf_probe_read_kernel(&count, 8, (void *)(mib + cpu->offset + migrated_index * 8));
	return count;
}

/* timer_begins keeps what a half-open handshake is, since its timer may free it. */
static __always_inline int timer_begins(__u64 timer)
{
	struct cpu_state *cpu = this_cpu();
	struct half_open *h;
	struct sock *request;
	__u64 sk;

	if (!cpu)
		return 0;
	timer = as_number(cpu, (void *)timer);
	h = &cpu->timer;
	h->key = timer;
	request = (struct sock *)request_of(timer);
	sk = (__u64)BPF_CORE_READ(request, __sk_common.skc_listener);
	h->sk = sk;
	h->migrations = migrations_of(cpu, sk);
	h->early = BPF_CORE_READ_BITFIELD_PROBED((struct request_sock *)request, num_timeout) < 2 &&
		   !BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_syn_retries);
	parse_request(&h->packet, request);
	return 0;
}

/* timer_ends: a handshake whose timer does not wait again is over, unless another
 * listener of its SO_REUSEPORT group took it over. */
static __always_inline int timer_ends(__u64 timer)
{
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;
	struct half_open *h;
	__u8 outcome = OUTCOME_TIMER_HANDSHAKE_EXPIRED;
	__u64 net, sk;

	if (!cpu || !cpu->timer.key)
		return 0;
	h = &cpu->timer;
	sk = h->sk;
	if (!timer) /* a kretprobe is not told */
		timer = h->key;
	if (h->key != timer)
		return 0;
	h->key = 0;
	forget_dropped_request(cpu); /* what this timer drops, no ACK did */
	if (BPF_CORE_READ((struct timer_list *)timer, entry.pprev) || !cpu->gate ||
	    migrations_of(cpu, sk) != h->migrations)
		return 0;
	net = (__u64)BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net);
	if (filter.netns && filter.netns != netns_of(net))
		return 0;
	if (BPF_CORE_READ((struct sock *)sk, __sk_common.skc_state) != TCP_LISTEN)
		outcome = OUTCOME_TIMER_LISTENER_CLOSED;
	tally = find_tally(cpu, net);
	if (!tally)
		return 0;
	cpu->packet = h->packet;
	return account_given(cpu, sk, outcome);
}

/* request_dropped: a half-open handshake is dropped; if for an ACK whose listener is gone,
 * that ACK is freed next. */
static __always_inline int request_dropped(__u64 sk, __u64 request)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu || LOAD(struct sock, sk, __sk_common.skc_state) == TCP_LISTEN)
		return 0;
	sk = as_number(cpu, (void *)sk);
	request = as_number(cpu, (void *)request);
	parse_request(&cpu->dropped_request.packet, (struct sock *)request);
	cpu->dropped_request.sk = sk;
	cpu->dropped_request.key = request;
	return 0;
}

/* timer_cancelled is a half-open handshake's timer that is stopped, which its drop does
 * (reqsk_queue_unlink), and its success. Either tells whom its SYN was given to. */
static __always_inline int timer_cancelled(__u64 timer)
{
	struct sock *request = (struct sock *)request_of(timer);
	__u64 sk = (__u64)LOAD(struct sock, request, __sk_common.skc_listener);

	if (LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return request_dropped(sk, (__u64)request);
	return learn_steered(sk, (__u64)request);
}

#endif
