/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Trampolines and kprobes: the counters at a function's entry and at its exit,
 * on one CPU with bottom halves off, so the difference is the branch it took.
 */
#ifndef SYNSPY_PATH_H
#define SYNSPY_PATH_H

#include "arrival.h"
#include "counters.h"
#include "ledger.h"
#include "listener.h"
#include "maps.h"
#include "record.h"

static __always_inline __u32 counters_of(enum stage stage)
{
	return stage == STAGE_SYN ? SYN_COUNTERS :
	       stage == STAGE_ACK ? ACK_COUNTERS :
				    1 << COUNTER_LISTEN_DROPS;
}

static __always_inline __u32 signs_of(enum stage stage)
{
	return stage == STAGE_SYN ? SYN_SIGNS :
	       stage == STAGE_ACK ? ACK_SIGNS :
				    1 << COUNTER_LISTEN_DROPS;
}

/* enter remembers the counters. key is what exit must bring again. */
static __always_inline int enter(struct slot *slot, __u64 key, __u64 sk, struct net *net,
				 const void *mib, enum stage stage, bool cast)
{
	slot->skb = key;
	slot->sk = sk;
	slot->net = (__u64)net;
	slot->mib = number(slot, mib) + slot->offset;
	read_counters(slot->mib, slot->before, counters_of(stage), cast);
	return 0;
}

/* listener_of is the socket itself, or, where Fast Open hands tcp_check_req the
 * child, the listener of the child's request. */
static __always_inline struct sock *listener_of(struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_RECV)
		return sk;
	return BPF_CORE_READ((struct tcp_sock *)sk, fastopen_rsk, __req_common.skc_listener);
}

/* settle gives a movement to the packet that made it. */
static __noinline int settle(struct slot *slot, struct sk_buff *skb, __u8 stage)
{
	struct sock *sk = (struct sock *)slot->sk;
	struct tally *tally;
	__u64 id = net_id(slot->net);
	__u8 outcome;

	slot->id = id;
	tally = bpf_map_lookup_elem(&tallies, &id);
	if (!tally) {
		tally_open(slot->net, true);
		tally = bpf_map_lookup_elem(&tallies, &id);
	}
	if (!tally) {
		__sync_fetch_and_add(&untracked, 1);
		return 0;
	}
	if (skb)
		parse(slot, skb);
	outcome = settled(slot, stage);
	if (!slot->gate || outcome == OUTCOME_NONE) {
		__u64 *to = slot->gate ? tally->unattributed : tally->gated;

#pragma unroll
		for (int i = 0; i < NUM_COUNTERS; i++)
			to[i] += slot->delta[i];
		return 0;
	}
	if (stage == STAGE_ACK)
		sk = listener_of(sk);
	return account(slot, tally, (__u64)sk, LISTENER_GIVEN, outcome);
}

/* leave compares, and only where something moved does more. */
static __always_inline int leave(__u64 key, struct sk_buff *skb, enum stage stage, bool cast)
{
	const __u32 which = counters_of(stage), signs = signs_of(stage);
	struct slot *slot = this_slot();
	__u64 any = 0;

	if (!slot || slot->skb != key)
		return 0;
	slot->skb = 0; /* an outer pair around the same packet finds nothing left */
	if (stage == STAGE_SYN)
		arrived_at(slot, slot->sk, slot->sk, true);
	else if (stage == STAGE_ACK) /* a SYN sent again comes this way too */
		arrived_at(slot, slot->sk, slot->sk, tcp_flags(skb) & TCP_FLAG_SYN);
	read_counters(slot->mib, slot->now, signs, cast);
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		if (signs & 1 << i)
			any |= slot->now[i] ^ slot->before[i];
	if (!any)
		return 0;
	read_counters(slot->mib, slot->now, which, cast);
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		slot->delta[i] = which & 1 << i ? slot->now[i] - slot->before[i] : 0;
	return settle(slot, skb, stage);
}

/* leave_kept is leave for kretprobes, which are not told the arguments again. */
static __always_inline int leave_kept(enum stage stage)
{
	struct slot *slot = this_slot();
	__u64 key = slot ? slot->skb : 0;

	if (!key)
		return 0;
	return leave(key, stage == STAGE_ICMP ? NULL : (struct sk_buff *)key, stage, false);
}

static __always_inline int enter_typed(struct sock *sk, __u64 skb, enum stage stage)
{
	struct net *net = sk->__sk_common.skc_net.net;
	struct slot *slot = this_slot();

	if (!slot)
		return 0;
	if (filter.netns && filter.netns != net->ns.inum) {
		slot->skb = 0;
		return 0;
	}
	return enter(slot, skb, (__u64)sk, net, net->mib.net_statistics, stage, true);
}

static __always_inline int enter_untyped(struct sock *sk, __u64 skb, enum stage stage)
{
	struct net *net = BPF_CORE_READ(sk, __sk_common.skc_net.net);
	struct slot *slot = this_slot();

	if (!slot)
		return 0;
	if (filter.netns && filter.netns != BPF_CORE_READ(net, ns.inum)) {
		slot->skb = 0;
		return 0;
	}
	return enter(slot, skb, (__u64)sk, net, BPF_CORE_READ(net, mib.net_statistics), stage,
		     false);
}

/* enter_request is for a function that gets the half-open handshake itself: it
 * may be freed by the exit, so what it says is kept now. */
static __always_inline int enter_request(struct sock *request)
{
	struct slot *slot = this_slot();

	if (!slot)
		return 0;
	parse_request(&slot->packet, request);
	enter_untyped(request, (__u64)request, STAGE_ICMP);
	slot->sk = (__u64)BPF_CORE_READ(request, __sk_common.skc_listener);
	return 0;
}

#endif
