/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger's kernel side: what each namespace's counters moved by, and which
 * packets explain it. Every movement ends in exactly one of: an outcome,
 * unattributed, or gated (before the start or after the end).
 */
#ifndef SYNSPY_LEDGER_H
#define SYNSPY_LEDGER_H

#include "counters.h"
#include "listener.h"
#include "cpu_state.h"
#include "maps.h"
#include "packet.h"

#define MAX_CPUS 8192
#define OLD_MAX_CPUS 512
#define CPUS_AT_ONCE 32 /* where the verifier must walk every turn of a loop */

/* said_by_counters names the branch that counters alone tell, where one is. */
static __always_inline __u8 said_by_counters(__u32 stage, __u32 moved)
{
	__u32 at = stage * MOVEMENTS + moved;

	asm volatile("" : "+r"(at)); /* the mask stays: see fate_of() */
	return outcomes_of[at & (4 * MOVEMENTS - 1)];
}

/* net_id names a namespace for ever. Its address does not: the memory of one
 * that ends goes to the next that begins, mostly at once. Before 5.12 its number and
 * the random one that it hashes with do. */
static __always_inline __u64 net_id(__u64 net)
{
	struct net *n = (struct net *)net;

	if (!bpf_core_field_exists(n->net_cookie))
		return (__u64)BPF_CORE_READ(n, hash_mix) << 32 | BPF_CORE_READ(n, ns.inum);
	if (have_rdonly_cast)
		return ((struct net *)bpf_rdonly_cast(n, bpf_core_type_id_kernel(struct net)))
			->net_cookie;
	return BPF_CORE_READ(n, net_cookie);
}

/* routes_on is the address of IpOutNoRoutes or Ip6OutNoRoutes of the CPU whose memory is at offset. */
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
	struct place_key key = { .id = net_id(net), .cpu = cpu };
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

	if (have_loop) { /* 5.17 */
		bpf_loop(MAX_CPUS, sum_turn, &s, 0);
		return;
	}
	for (__u32 from = 0; from < OLD_MAX_CPUS; from += CPUS_AT_ONCE)
		if (sum_cpus(net, from, into))
			break;
}

/* begin_opening makes the row of a namespace that was not there at the start: its counters as
 * they stand, summed over all CPUs. Called when its first listener opens, so nothing is in flight. */
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

/* begin_tally makes this CPU's row of cpu->moved.id, whose counters are in cpu->moved.now. NULL where there
 * is no room, or it is not known since when the namespace's counters are followed. */
static __noinline struct tally *begin_tally(struct cpu_state *cpu, __u64 net)
{
	struct place_key key = { .id = cpu->moved.id, .cpu = bpf_get_smp_processor_id() };
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
	struct place_key key = { .id = id, .cpu = bpf_get_smp_processor_id() };

	return bpf_map_lookup_elem(&tallies, &key);
}

static __always_inline __u32 place_of(__u64 net)
{
	return (net * 0x9e3779b97f4a7c15ULL >> 56) & (KNOWN_NAMESPACES - 1);
}

/* known_key is of a namespace until a listener opens: then another may have come to its address. */
static __always_inline __u64 known_key(__u64 net)
{
	return net ^ (__u64)listen_generation << 48;
}

/* note_routes remembers how often a route was missing until now, after a look at what moved there. */
static __always_inline void note_routes(struct cpu_state *cpu, __u64 net, bool v6)
{
	struct known *known = &cpu->known[place_of(net)];

	if (known->routes[v6 ? 1 : 0])
		read_words(&known->unrouted[v6 ? 1 : 0], (void *)known->routes[v6 ? 1 : 0], 1);
}

/* know makes place for a namespace. */
static __noinline int know(struct cpu_state *cpu, __u64 net)
{
	struct known *known = &cpu->known[place_of(net)];
	__u64 id = net_id(net);

	known->key = known_key(net);
	known->mib = number(cpu, LOAD(struct net, net, mib.net_statistics)) + cpu->offset;
	known->routes[0] = out_no_routes ? routes_on(net, cpu->offset, false) : 0;
	known->routes[1] = out_no_routes ? routes_on(net, cpu->offset, true) : 0;
	known->sums[SIGNS_SYN] = known->sums[SIGNS_ACK] = known->sums[SIGNS_ANY] = -1;
	if (known->id != id) {
		known->id = id;
		known->unrouted[0] = known->unrouted[1] = 0;
	}
	return 0;
}

/* look_at leaves in cpu->moved what moved in net since this CPU last looked, of these counters,
 * and returns its tally; NULL when nothing did. */
static __always_inline struct tally *look_at(struct cpu_state *cpu, __u64 net, __u32 which)
{
	struct known *known = &cpu->known[place_of(net)];
	__u64 any = 0, bits = 0, more = 0;
	struct tally *tally;

	cpu->moved.net = net;
	cpu->moved.id = known->id;
	tally = tally_here(cpu->moved.id);
	if (!tally) {
		read_counters(known->mib, cpu->moved.now, ALL_COUNTERS, true);
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
	read_counters(known->mib, cpu->moved.now, which, true);
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
	return look_at(cpu, net, SYN_COUNTERS);
}

static __noinline struct tally *moved_by_ack(struct cpu_state *cpu, __u64 net)
{
	return look_at(cpu, net, ACK_COUNTERS);
}

static __noinline struct tally *moved_since(struct cpu_state *cpu, __u64 net)
{
	return look_at(cpu, net, ALL_COUNTERS);
}

static __always_inline struct known *known_of(struct cpu_state *cpu, __u64 net)
{
	struct known *known = &cpu->known[place_of(net)];

	if (known->key != known_key(net))
		know(cpu, net);
	return known;
}

/* movement is moved_since behind a memory of the last sum of the signs, so that a
 * packet which moved nothing touches this CPU's state and no map. */
static __always_inline struct tally *movement(struct cpu_state *cpu, __u64 net, enum signs signs)
{
	struct known *known = known_of(cpu, net);
	__u64 sum;

	sum = sum_signs(cpu, known->mib,
			signs == SIGNS_SYN ? SYN_SIGNS :
			signs == SIGNS_ACK ? ACK_SIGNS :
					     ALL_SIGNS);
	if (known->sums[signs] == sum)
		return NULL;
	known->sums[signs] = sum;
	return signs == SIGNS_SYN ? moved_by_syn(cpu, net) :
	       signs == SIGNS_ACK ? moved_by_ack(cpu, net) :
				    moved_since(cpu, net);
}

/* movement_by_ack is that of an ACK. One that died nearly always moved something. */
static __always_inline struct tally *movement_by_ack(struct cpu_state *cpu, __u64 net)
{
	if (!cpu->call.died)
		return movement(cpu, net, SIGNS_ACK);
	known_of(cpu, net);
	return moved_by_ack(cpu, net);
}

/* in_reserve is the kernel's own formula (tcp_conn_request): cookies off, and only the
 * last quarter of tcp_max_syn_backlog is left. */
static __always_inline bool in_reserve(struct sock *sk, struct net *net)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	__s32 most = sysctl_of(net, ipv4.sysctl_max_syn_backlog);
	__s32 queued = BPF_CORE_READ(icsk, icsk_accept_queue.qlen.counter);

	return !(sysctl_of(net, ipv4.sysctl_tcp_syncookies) & 0xff) && most - queued < most >> 2;
}

/* to_many tells whether a SYN was sent to a broadcast or multicast address. */
static __always_inline bool to_many(struct cpu_state *cpu, struct sk_buff *skb)
{
	struct rtable *route;

	if (cpu->packet.family == AF_INET6)
		return cpu->packet.server[0] == 0xff;
	route = (struct rtable *)(BPF_CORE_READ(skb, _skb_refdst) & SKB_DST_PTRMASK);
	return route && BPF_CORE_READ(route, rt_flags) & (RTCF_BROADCAST | RTCF_MULTICAST);
}

/* proven_by is for deaths that no event tells the reason and place of. */
static __always_inline void proven_by(struct cpu_state *cpu, __u8 proof)
{
	cpu->verdict.proof = proof;
	cpu->verdict.reason = 0;
	cpu->verdict.place = 0;
}

/* unrouted_since tells whether a route was missing in cpu->moved.net since this CPU last
 * looked: here, or at its last packet, whatever is known to be later. */
static __always_inline bool unrouted_since(struct cpu_state *cpu)
{
	__u64 net = cpu->moved.net, id = cpu->moved.id, now, last;
	__u32 place = place_of(net), v6 = cpu->packet.family == AF_INET6;
	struct tally *tally = tally_here(id);

	if (!tally)
		return false;
	now = unrouted_on(net, cpu->offset, v6);
	last = v6 ? tally->unrouted[1] : tally->unrouted[0];
	if (cpu->known[place].id == id && cpu->known[place].unrouted[v6] > last)
		last = cpu->known[place].unrouted[v6];
	if (v6)
		tally->unrouted[1] = now;
	else
		tally->unrouted[0] = now;
	return now != last;
}

/* told_apart names the branches that move the same counters by what else happened:
 * the order is the kernel's. sk is the listener, 0 where it is not known. */
static __noinline __u8 told_apart(struct cpu_state *cpu, struct sk_buff *skb, __u64 sk,
				  __u8 outcome)
{
	__u8 of_lsm = 0, of_route = 0;

	switch (outcome) {
	case OUTCOME_SYN_OTHER:
		if (skb && to_many(cpu, skb))
			return OUTCOME_SYN_BAD_SYN_ADDRESS;
		of_lsm = OUTCOME_SYN_DENIED_BY_LSM;
		of_route = OUTCOME_SYN_NO_ROUTE_BACK;
		break;
	case OUTCOME_SYN_OTHER_COOKIES:
		of_lsm = OUTCOME_SYN_DENIED_BY_LSM_COOKIES;
		of_route = OUTCOME_SYN_NO_ROUTE_BACK_COOKIES;
		break;
	case OUTCOME_ACK_OTHER:
		of_route = OUTCOME_ACK_NO_ROUTE_BACK;
		break;
	case OUTCOME_ACK_OTHER_RESET:
		of_route = OUTCOME_ACK_NO_ROUTE_BACK_RESET;
		break;
	case OUTCOME_ACK_OTHER_COOKIE:
		of_route = OUTCOME_ACK_NO_ROUTE_BACK_COOKIE;
		break;
	case OUTCOME_ACK_OTHER_COOKIE_EARLY:
		of_lsm = OUTCOME_ACK_DENIED_BY_LSM_COOKIE;
		of_route = OUTCOME_ACK_NO_ROUTE_BACK_COOKIE_EARLY;
		break;
	default:
		return outcome;
	}
	if (cpu->denied && of_lsm) {
		cpu->verdict.proof = PROOF_RETURN;
		return of_lsm;
	}
	if (unrouted_since(cpu))
		return of_route;
	if (outcome == OUTCOME_SYN_OTHER && sk &&
	    in_reserve((struct sock *)sk, (struct net *)cpu->moved.net)) {
		cpu->verdict.proof = PROOF_STATE;
		return OUTCOME_SYN_BACKLOG_RESERVE;
	}
	return outcome;
}

#define TOLD_APART                                                       \
	(1ULL << OUTCOME_SYN_OTHER | 1ULL << OUTCOME_SYN_OTHER_COOKIES | \
	 1ULL << OUTCOME_ACK_OTHER | 1ULL << OUTCOME_ACK_OTHER_RESET |   \
	 1ULL << OUTCOME_ACK_OTHER_COOKIE | 1ULL << OUTCOME_ACK_OTHER_COOKIE_EARLY)

/* outcome_of names the branch that the packet in cpu->packet took. Counters do not tell an RST
 * from what was answered by one, nor a good cookie whose ACK died (cpu->call.died), so that it
 * made no connection. */
__noinline __u8 outcome_of(__u64 skb, __u64 sk, enum stage stage)
{
	struct cpu_state *cpu = this_cpu();
	__u8 outcome;

	if (!cpu)
		return OUTCOME_NONE;
	outcome = said_by_counters(stage, cpu->moved.bits);
	if (outcome == OUTCOME_ACK_BAD_RESET && cpu->packet.flags & TCP_FLAG_RST)
		outcome = OUTCOME_ACK_BAD_RST;
	if (outcome == OUTCOME_ACK_COOKIE_ACCEPTED && cpu->call.died)
		outcome = OUTCOME_ACK_OTHER_COOKIE_EARLY;
	proven_by(cpu, PROOF_COUNTERS);
	if (!(TOLD_APART & 1ULL << outcome))
		return outcome;
	/* By way of memory: the verifier forgets which one it was. */
	*(volatile __u64 *)&cpu->scratch = outcome;
	return told_apart(cpu, (struct sk_buff *)skb, sk, *(volatile __u64 *)&cpu->scratch);
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

#endif
