/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger's kernel side: what each namespace's counters moved by, and which
 * packets explain it. Every movement ends in exactly one of: an outcome,
 * unattributed, or gated (before the start or after the end).
 */
#ifndef SYNSPY_LEDGER_H
#define SYNSPY_LEDGER_H

#include "counters.h"
#include "maps.h"
#include "packet.h"

#define MAX_CPUS 512
#define OLD_MAX_CPUS 64 /* where the verifier must walk every turn of a loop */
#define BIT(c) (1U << COUNTER_##c)

enum stage {
	STAGE_SYN,
	STAGE_ACK,
	STAGE_ICMP,
};

/* classify names the branch from the counters that moved. The table of
 * internal/event/outcome.go says the same from the other side. */
static __always_inline enum outcome classify(enum stage stage, __u32 moved, __u8 tcp_flags)
{
	if (stage == STAGE_SYN) {
		switch (moved) {
		case BIT(LISTEN_OVERFLOWS) | BIT(LISTEN_DROPS):
			return OUTCOME_SYN_ACCEPT_QUEUE_FULL;
		case BIT(REQ_Q_FULL_DO_COOKIES) | BIT(LISTEN_OVERFLOWS) | BIT(LISTEN_DROPS):
			return OUTCOME_SYN_ACCEPT_QUEUE_FULL_COOKIES;
		case BIT(REQ_Q_FULL_DROP) | BIT(LISTEN_DROPS):
			return OUTCOME_SYN_QUEUE_FULL;
		case BIT(LISTEN_DROPS):
			return OUTCOME_SYN_OTHER;
		case BIT(REQ_Q_FULL_DO_COOKIES) | BIT(LISTEN_DROPS):
			return OUTCOME_SYN_OTHER_COOKIES;
		case BIT(REQ_Q_FULL_DO_COOKIES) | BIT(SYNCOOKIES_SENT):
			return OUTCOME_SYN_COOKIE_SENT;
		case BIT(FASTOPEN_LISTEN_OVERFLOW):
			return OUTCOME_SYN_FASTOPEN_QUEUE_FULL;
		}
		return OUTCOME_NONE;
	}
	if (stage == STAGE_ICMP)
		return moved == BIT(LISTEN_DROPS) ? OUTCOME_ICMP_ERROR : OUTCOME_NONE;
	switch (moved) {
	case BIT(LISTEN_OVERFLOWS) | BIT(LISTEN_DROPS):
		return OUTCOME_ACK_ACCEPT_QUEUE_FULL;
	case BIT(LISTEN_OVERFLOWS) | BIT(LISTEN_DROPS) | BIT(EMBRYONIC_RSTS):
		return OUTCOME_ACK_ACCEPT_QUEUE_FULL_RESET;
	case BIT(SYNCOOKIES_RECV) | BIT(LISTEN_OVERFLOWS) | BIT(LISTEN_DROPS):
		return OUTCOME_ACK_ACCEPT_QUEUE_FULL_COOKIE;
	case BIT(LISTEN_DROPS):
		return OUTCOME_ACK_OTHER;
	case BIT(LISTEN_DROPS) | BIT(EMBRYONIC_RSTS):
		return OUTCOME_ACK_OTHER_RESET;
	case BIT(SYNCOOKIES_RECV) | BIT(LISTEN_DROPS):
		return OUTCOME_ACK_OTHER_COOKIE;
	case BIT(SYNCOOKIES_FAILED):
		return OUTCOME_ACK_COOKIE_INVALID;
	case BIT(SYNCOOKIES_RECV):
		return OUTCOME_ACK_COOKIE_ACCEPTED;
	case BIT(DEFER_ACCEPT_DROP):
		return OUTCOME_ACK_DEFER_ACCEPT;
	case BIT(EMBRYONIC_RSTS):
		return tcp_flags & TCP_FLAG_RST ? OUTCOME_ACK_BAD_RST : OUTCOME_ACK_BAD_RESET;
	}
	return OUTCOME_NONE;
}

/* settled is classify behind a memory: the verifier then sees one unknown outcome
 * and not each of them in turn, which makes programs load five times as fast. */
static __noinline __u8 settled(struct slot *slot, __u8 stage)
{
	*(volatile __u64 *)&slot->number = classify(stage, signature(slot->delta),
						    slot->packet.flags);
	return *(volatile __u64 *)&slot->number;
}

/* net_id names a namespace for ever. Its address does not: the memory of one
 * that ends goes to the next that begins, mostly at once. Before 5.12 there is
 * nothing better. */
static __always_inline __u64 net_id(__u64 net)
{
	struct net *n = (struct net *)net;

	if (!bpf_core_field_exists(n->net_cookie))
		return net;
	if (have_rdonly_cast)
		return ((struct net *)bpf_rdonly_cast(n, bpf_core_type_id_kernel(struct net)))
			->net_cookie;
	return BPF_CORE_READ(n, net_cookie);
}

/* What summing a namespace's counters over the CPUs needs. */
struct summing {
	__u64 id;
	__u64 mib;
	struct opening *sum;
};

static long sum_cpu(__u32 cpu, struct summing *s)
{
	struct base_key base = { .id = s->id, .cpu = cpu };
	__u64 *offset = bpf_map_lookup_elem(&offsets, &cpu);
	struct opening one;
	__u64 any = 0;

	if (!offset)
		return 1; /* past the last CPU */
	if (!*offset)
		return 0; /* not online */
	read_counters(s->mib + *offset, one.counters, ALL_COUNTERS, false);
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++) {
		s->sum->counters[i] += one.counters[i];
		any |= one.counters[i];
	}
	if (any)
		bpf_map_update_elem(&bases, &base, &one, BPF_ANY);
	return 0;
}

/* tally_open starts the books of a namespace that was not there at the start: its
 * counters as they stand, summed over all CPUs. Called when its first listener
 * opens, so nothing is in flight. A global function, so that the verifier walks it
 * once and not once for every caller. */
__noinline int tally_open(__u64 address)
{
	struct net *net = (struct net *)address;
	__u64 key = net_id(address);
	struct summing s = { .id = key };
	struct opening zeros = {};
	struct tally *tally, *blank;
	__u32 zero = 0;

	blank = bpf_map_lookup_elem(&blanks, &zero);
	if (!blank || bpf_map_lookup_elem(&tallies, &key))
		return 0;
	bpf_map_update_elem(&openings, &key, &zeros, BPF_ANY);
	s.mib = (__u64)BPF_CORE_READ(net, mib.net_statistics);
	s.sum = bpf_map_lookup_elem(&openings, &key);
	if (!s.sum) {
		__sync_fetch_and_add(&untracked, 1);
		return 0;
	}
	if (have_loop) { /* 5.17 */
		bpf_loop(MAX_CPUS, sum_cpu, &s, 0);
	} else {
		for (__u32 cpu = 0; cpu < OLD_MAX_CPUS; cpu++)
			if (sum_cpu(cpu, &s))
				break;
	}
	bpf_map_update_elem(&tallies, &key, blank, BPF_NOEXIST);
	tally = bpf_map_lookup_elem(&tallies, &key);
	if (!tally) {
		__sync_fetch_and_add(&untracked, 1);
		return 0;
	}
	tally->net = address;
	tally->netns = BPF_CORE_READ(net, ns.inum);
	return 0;
}

/* moved_since leaves in slot->delta what moved in net since this CPU last looked,
 * and returns its tally; NULL when nothing did. */
static __noinline struct tally *moved_since(struct slot *slot, __u64 net, __u64 mib)
{
	__u64 id = net_id(net);
	struct tally *tally = bpf_map_lookup_elem(&tallies, &id);
	struct base_key key = { .id = id };
	struct opening *base;
	__u64 any = 0;

	slot->net = net;
	slot->id = id;
	if (!tally) {
		if (slot->gate) /* what moved before is part of its opening values */
			tally_open(net);
		return NULL;
	}
	if (!tally->based) {
		/* One that opened while running has a base, closed gate or not; one
		 * that was there before gets it from the first snapshot. */
		if (!bpf_map_lookup_elem(&openings, &id))
			return NULL;
		key.cpu = bpf_get_smp_processor_id();
		base = bpf_map_lookup_elem(&bases, &key);
		if (base)
			__builtin_memcpy(tally->seen, base->counters, sizeof(tally->seen));
		tally->based = 1;
	}
	read_counters(mib, slot->now, ALL_COUNTERS, true);
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++) {
		slot->delta[i] = slot->now[i] - tally->seen[i];
		any |= slot->delta[i];
		tally->seen[i] = slot->now[i];
	}
	return any ? tally : NULL;
}

/* movement is moved_since behind a memory of the last sum of the signs, so that a
 * packet which moved nothing touches this CPU's slot and no map. */
static __always_inline struct tally *movement(struct slot *slot, __u64 net, __u64 mib,
					      enum signs signs)
{
	/* Another namespace may have come to this address: then it has opened a listener. */
	__u64 sum = (__u64)listen_generation << 40;
	__u32 place = (net * 0x9e3779b97f4a7c15ULL >> 56) & (KNOWN_NAMESPACES - 1);
	const __u32 which = signs == SIGNS_SYN ? SYN_SIGNS : ALL_SIGNS;

	read_counters(mib, slot->now, which, true);
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		if (which & 1 << i)
			sum += slot->now[i];
	if (slot->known[place].net != net) {
		slot->known[place].net = net;
		slot->known[place].sums[SIGNS_SYN] = slot->known[place].sums[SIGNS_ANY] = -1;
	}
	if (slot->known[place].sums[signs] == sum)
		return NULL;
	slot->known[place].sums[signs] = sum;
	return moved_since(slot, net, mib);
}

/* unexplained books a movement that no packet at hand made. */
static __noinline int unexplained(struct slot *slot, struct tally *tally)
{
	__u64 *to = slot->gate ? tally->unattributed : tally->gated;

#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		to[i] += slot->delta[i];
	return 0;
}

#endif
