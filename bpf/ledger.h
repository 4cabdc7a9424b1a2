/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger's kernel side: what each namespace's counters moved by, and which
 * packets explain it. Every movement ends in exactly one of: an outcome,
 * unattributed, or gated (before the start or after the end).
 */
#ifndef SYNSPY_LEDGER_H
#define SYNSPY_LEDGER_H

#include "counters.h"
#include "cpu_state.h"
#include "listener.h"
#include "maps.h"
#include "packet.h"

#define MAX_CPUS 8192
#define OLD_MAX_CPUS 512
#define CPUS_AT_ONCE 32 /* where the verifier must walk every turn of a loop */

/* routes_on is the address of a CPU's IpOutNoRoutes or Ip6OutNoRoutes; offset: of its memory. */
static __always_inline __u64 routes_on(__u64 net, __u64 offset, bool v6)
{
	struct net *n = (struct net *)net;
	__u64 mib;

	if (v6)
		mib = (__u64)BPF_CORE_READ(n, mib.ipv6_statistics);
	else
		mib = (__u64)BPF_CORE_READ(n, mib.ip_statistics);
	return mib + offset + out_no_routes * 8;
}

/* unrouted_on is the counter itself. */
static __always_inline __u64 unrouted_on(__u64 net, __u64 offset, bool v6)
{
	__u64 count = 0;

	if (!out_no_routes)
		return 0;
	bpf_probe_read_kernel(&count, 8, (void *)routes_on(net, offset, v6));
	return count;
}

enum sum_into {
	SUM_OPENING, /* the namespace's row */
	SUM_SNAPSHOT, /* what the snapshot program's reader gets */
};

/* sum_cpu adds one CPU's counters to a namespace's sum, and keeps them as what they were when it
 * was opened. It returns 1 past the last CPU, and where there is no sum. A global function, so that
 * the verifier walks it once, and not for each of many CPUs. */
__noinline int sum_cpu(__u64 net, __u32 cpu, __u32 into)
{
	struct namespace_cpu key = { .id = net_id(net), .cpu = cpu };
	__u64 *offset = bpf_map_lookup_elem(&offsets, &cpu);
	struct opening *opening = NULL;
	struct snapshot *snapshot;
	struct base one, *sum;
	__u64 any, mib;
	__u32 zero = 0;

	if (!offset)
		return 1;
	if (!*offset)
		return 0; /* not online */
	if (into == SUM_OPENING) {
		opening = bpf_map_lookup_elem(&openings, &key.id);
		if (!opening)
			return 1;
		sum = &opening->then;
	} else {
		snapshot = bpf_map_lookup_elem(&snapshots, &zero);
		if (!snapshot)
			return 1;
		sum = &snapshot->now;
	}
	mib = (__u64)BPF_CORE_READ((struct net *)net, mib.net_statistics) + *offset;
	read_counters(mib, one.counters, ALL_COUNTERS, false);
	one.unrouted[0] = unrouted_on(net, *offset, false);
	one.unrouted[1] = unrouted_on(net, *offset, true);
	any = one.unrouted[0] | one.unrouted[1];
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++) {
		sum->counters[i] += one.counters[i];
		any |= one.counters[i];
	}
	sum->unrouted[0] += one.unrouted[0];
	sum->unrouted[1] += one.unrouted[1];
	if (any && opening && bpf_map_update_elem(&bases, &key, &one, BPF_ANY))
		opening->unbased = 1;
	return 0;
}

/* Whose counters are summed. */
struct summing {
	__u64 net;
	__u32 into;
};

static long sum_turn(__u32 cpu, struct summing *s)
{
	int ended = sum_cpu(s->net, cpu, s->into);

	/* The verifier does not know, as the compiler does, that it is 0 or 1. */
	asm volatile("" : "+r"(ended));
	return ended ? 1 : 0;
}

/* sum_cpus does so with some CPUs in a row, from one on. */
__noinline int sum_cpus(__u64 net, __u32 from, __u32 into)
{
	for (__u32 turn = 0; turn < CPUS_AT_ONCE; turn++)
		if (sum_cpu(net, from + turn, into))
			return 1;
	return 0;
}

/* sum_all does so with all. */
static __always_inline void sum_all(__u64 net, enum sum_into into)
{
	struct summing s = { .net = net, .into = into };

	if (have_loop) {
		bpf_loop(MAX_CPUS, sum_turn, &s, 0);
		return;
	}
	for (__u32 from = 0; from < OLD_MAX_CPUS; from += CPUS_AT_ONCE)
		if (sum_cpus(net, from, into))
			break;
}

/* begin_opening makes the row of a namespace that was not there at the start: its counters as they
 * stand, summed over all CPUs. Called when its first listener opens, so nothing is in flight. */
__noinline int begin_opening(__u64 address, __u32 named)
{
	struct net *net = (struct net *)address;
	__u64 id = net_id(address);
	static const struct opening none = {}; /* six calls share the stack's 512 bytes */
	struct opening *opening;

	if (bpf_map_lookup_elem(&openings, &id))
		return 0;
	if (!named && openings_made + openings_held >= openings_room)
		return 0;
	if (bpf_map_update_elem(&openings, &id, &none, BPF_NOEXIST))
		return 0;
	__sync_fetch_and_add(&openings_made, 1);
	opening = bpf_map_lookup_elem(&openings, &id);
	if (!opening)
		return 0;
	opening->netns = BPF_CORE_READ(net, ns.inum);
	opening->named = named;
	opening->net = address; /* last: without it nobody takes the row for a namespace's */
	sum_all(address, SUM_OPENING);
	return 0;
}

/* begin_tally makes this CPU's row of cpu->moved.id, whose counters are in cpu->moved.now. NULL
 * where there is no room, or it is not known since when the namespace's counters are followed. */
static __noinline struct tally *begin_tally(struct cpu_state *cpu, __u64 net)
{
	struct namespace_cpu key = { .id = cpu->moved.id, .cpu = bpf_get_smp_processor_id() };
	struct opening *opening = bpf_map_lookup_elem(&openings, &key.id);
	struct tally *fresh = &cpu->new_tally;
	struct base *base;

	if (!opening) {
		if (!cpu->gate) /* what moved before is part of its opening values */
			return NULL;
		begin_opening(net, false);
		if (!bpf_map_lookup_elem(&openings, &key.id))
			__sync_fetch_and_add(&untracked, 1);
		return NULL;
	}
	if (opening->unbased || (!opening->named && tallies_made + tallies_held >= tallies_room)) {
		__sync_fetch_and_add(&untracked, 1);
		return NULL;
	}
	__builtin_memset(fresh, 0, sizeof(*fresh));
	fresh->netns = opening->netns;
	base = bpf_map_lookup_elem(&bases, &key);
	if (base) {
		__builtin_memcpy(fresh->seen, base->counters, sizeof(fresh->seen));
		__builtin_memcpy(fresh->unrouted, base->unrouted, sizeof(fresh->unrouted));
	}
	if (bpf_map_update_elem(&tallies, &key, fresh, BPF_NOEXIST)) {
		__sync_fetch_and_add(&untracked, 1);
		return NULL;
	}
	__sync_fetch_and_add(&tallies_made, 1);
	return bpf_map_lookup_elem(&tallies, &key);
}

/* tally_here is this CPU's row of a namespace, if there is one. */
static __always_inline struct tally *tally_here(__u64 id)
{
	struct namespace_cpu key = { .id = id, .cpu = bpf_get_smp_processor_id() };

	return bpf_map_lookup_elem(&tallies, &key);
}

static __always_inline __u32 namespace_index(__u64 net)
{
	return (net * 0x9e3779b97f4a7c15ULL >> 56) & (KNOWN_NAMESPACES - 1);
}

/* namespace_key is of a namespace until a listener opens: then another may have come to its
 * address. */
static __always_inline __u64 namespace_key(__u64 net)
{
	return net ^ (__u64)listen_generation << 48;
}

/* note_routes remembers how often a route was missing until now, once it is known what moved. */
static __always_inline void note_routes(struct cpu_state *cpu, __u64 net, bool v6)
{
	struct namespace_counters *ns = &cpu->namespaces[namespace_index(net)];

	if (ns->routes[v6 ? 1 : 0])
		read_words(&ns->unrouted[v6 ? 1 : 0], (void *)ns->routes[v6 ? 1 : 0], 1);
}

/* remember_namespace makes place for a namespace. */
static __noinline int remember_namespace(struct cpu_state *cpu, __u64 net)
{
	struct namespace_counters *ns = &cpu->namespaces[namespace_index(net)];
	__u64 id = net_id(net);

	ns->key = namespace_key(net);
	ns->mib = as_number(cpu, LOAD(struct net, net, mib.net_statistics)) + cpu->offset;
	ns->routes[0] = out_no_routes ? routes_on(net, cpu->offset, false) : 0;
	ns->routes[1] = out_no_routes ? routes_on(net, cpu->offset, true) : 0;
	ns->sums[SIGNS_SYN] = ns->sums[SIGNS_ACK] = ns->sums[SIGNS_ANY] = -1;
	if (ns->id != id) {
		ns->id = id;
		ns->unrouted[0] = ns->unrouted[1] = 0;
	}
	return 0;
}

/* read_moved leaves in cpu->moved what moved in net since this CPU last looked, of these counters,
 * and returns its tally; NULL when nothing did. */
static __always_inline struct tally *read_moved(struct cpu_state *cpu, __u64 net, __u32 which)
{
	struct namespace_counters *ns = &cpu->namespaces[namespace_index(net)];
	__u64 any = 0, bits = 0, more = 0;
	struct tally *tally;

	cpu->moved.net = net;
	cpu->moved.id = ns->id;
	tally = tally_here(cpu->moved.id);
	if (!tally) {
		read_counters(ns->mib, cpu->moved.now, ALL_COUNTERS, true);
#pragma unroll
		for (int i = 0; i < NUM_COUNTERS; i++)
			any |= cpu->moved.now[i];
		if (!any) { /* nothing ever moved here */
			if (cpu->gate)
				begin_opening(net, false);
			return NULL;
		}
		tally = begin_tally(cpu, net);
	}
	if (!tally)
		return NULL;
	read_counters(ns->mib, cpu->moved.now, which, true);
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++) {
		__u64 delta = 0;

		if (which & 1 << i) {
			delta = cpu->moved.now[i] - tally->seen[i];
			bits |= delta << i;
			more |= delta >> 1;
			tally->seen[i] = cpu->moved.now[i];
		}
		cpu->moved.delta[i] = delta;
	}
	cpu->moved.bits = more ? 0 : bits;
	return bits | more ? tally : NULL;
}

static __noinline struct tally *moved_by_syn(struct cpu_state *cpu, __u64 net)
{
	return read_moved(cpu, net, SYN_COUNTERS);
}

static __noinline struct tally *moved_by_ack(struct cpu_state *cpu, __u64 net)
{
	return read_moved(cpu, net, ACK_COUNTERS);
}

static __noinline struct tally *moved_since(struct cpu_state *cpu, __u64 net)
{
	return read_moved(cpu, net, ALL_COUNTERS);
}

static __always_inline struct namespace_counters *counters_of(struct cpu_state *cpu, __u64 net)
{
	struct namespace_counters *ns = &cpu->namespaces[namespace_index(net)];

	if (ns->key != namespace_key(net))
		remember_namespace(cpu, net);
	return ns;
}

/* movement is moved_since behind a memory of the last sum of the signs, so that a
 * packet which moved nothing touches this CPU's state and no map. */
static __always_inline struct tally *movement(struct cpu_state *cpu, __u64 net, enum signs signs)
{
	struct namespace_counters *ns = counters_of(cpu, net);
	__u64 sum;

	sum = sum_signs(cpu, ns->mib,
			signs == SIGNS_SYN ? SYN_SIGNS :
			signs == SIGNS_ACK ? ACK_SIGNS :
					     ALL_SIGNS);
	if (ns->sums[signs] == sum)
		return NULL;
	ns->sums[signs] = sum;
	return signs == SIGNS_SYN ? moved_by_syn(cpu, net) :
	       signs == SIGNS_ACK ? moved_by_ack(cpu, net) :
				    moved_since(cpu, net);
}

/* movement_by_ack is that of an ACK. One that died nearly always moved something. */
static __always_inline struct tally *movement_by_ack(struct cpu_state *cpu, __u64 net, bool died)
{
	if (!died)
		return movement(cpu, net, SIGNS_ACK);
	counters_of(cpu, net);
	return moved_by_ack(cpu, net);
}

/* unexplained books a movement that no packet at hand made. */
static __noinline int unexplained(struct cpu_state *cpu, struct tally *tally)
{
	__u64 *to = cpu->gate ? tally->unattributed : tally->gated;

#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		to[i] += cpu->moved.delta[i];
	return 0;
}

/* find_tally finds or begins this CPU's tally of a namespace, in which something died that moved
 * no counter: where there is no room, that of other namespaces, which is as exact. */
static __noinline struct tally *find_tally(struct cpu_state *cpu, __u64 net)
{
	struct tally *tally;

	cpu->moved.net = net;
	cpu->moved.id = net_id(net);
	tally = tally_here(cpu->moved.id);
	if (tally || !cpu->gate)
		return tally;
	begin_opening(net, false);
	tally = begin_tally(cpu, net);
	return tally ? tally : tally_here(0);
}

#endif
