/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How many SYNs and final ACKs reached each listener. Counted in this CPU's
 * state, on the path of every SYN; a map is touched only when two listeners
 * share a place and one must make room.
 */
#ifndef SYNSPY_ARRIVALS_H
#define SYNSPY_ARRIVALS_H

#include "cpu_state.h"
#include "maps.h"
#include "packet.h"

/* arrivals_add adds what one place has. Two CPUs may lose each other's mark, never each other's
 * count. */
static __always_inline void arrivals_add(struct arrivals *to, struct arrivals *more)
{
	__sync_fetch_and_add(&to->syn, more->syn);
	__sync_fetch_and_add(&to->ack, more->ack);
	__sync_fetch_and_add(&to->entered, more->entered);
	__sync_fetch_and_add(&to->came_again, more->came_again);
	if (more->reading != accept_reading)
		return;
	if (to->reading != more->reading) {
		to->reading = more->reading;
		to->accept_max = 0;
		to->syn_max = 0;
	}
	if (more->accept_max > to->accept_max)
		to->accept_max = more->accept_max;
	if (more->syn_max > to->syn_max)
		to->syn_max = more->syn_max;
}

static __always_inline void arrivals_flush(struct arrival *a)
{
	struct arrivals *total;
	__u64 id = a->id;

	total = bpf_map_lookup_elem(&arrived, &id);
	if (!total) {
		if (!bpf_map_update_elem(&arrived, &id, &a->seen, BPF_NOEXIST)) {
			__sync_fetch_and_add(&arrived_made, 1);
			return;
		}
		total = bpf_map_lookup_elem(&arrived, &id); /* another CPU made it this moment */
	}
	if (!total) {
		id = 0; /* the table is full: "other listeners" */
		__sync_fetch_and_add(&unlisted_syns, a->seen.syn);
		total = bpf_map_lookup_elem(&arrived, &id);
	}
	if (total)
		arrivals_add(total, &a->seen);
}

/* outside_netns: in a network namespace that is not asked for. */
static __always_inline bool outside_netns(__u64 sk)
{
	struct net *net;

	if (!filter.netns)
		return false;
	net = LOAD(struct sock, sk, __sk_common.skc_net.net);
	return filter.netns != LOAD(struct net, net, ns.inum);
}

static __always_inline struct arrival *arrival_place(struct cpu_state *cpu, __u64 key)
{
	__u32 index = (key * 0x9e3779b97f4a7c15ULL >> 56) & (KNOWN_ARRIVALS - 1);

	return &cpu->arrivals[index];
}

/* arrival_begin makes room for a listener where another is. Who reads both the CPUs' states and the
 * table meanwhile sees that by the moves. */
static __noinline int arrival_begin(struct arrival *a, __u64 key, __u64 sk)
{
	bool moves = a->key;

	if (moves) {
		__sync_fetch_and_add(&moves_begun, 1);
		arrivals_flush(a);
	}
	a->key = key;
	a->sk = sk;
	a->id = socket_id(sk);
	a->net = have_listen_path ? (__u64)LOAD(struct sock, sk, __sk_common.skc_net.net) : 0;
	__builtin_memset(&a->seen, 0, sizeof(a->seen));
	if (moves)
		__sync_fetch_and_add(&moves_ended, 1);
	return 0;
}

static __always_inline void count_arrival(struct cpu_state *cpu, struct arrival *at, bool syn)
{
	if (!cpu->gate)
		return;
	if (syn)
		at->seen.syn++;
	else
		at->seen.ack++;
}

static __always_inline void count_arrival_by_key(struct cpu_state *cpu, __u64 key, __u64 sk,
						 bool syn)
{
	struct arrival *a = arrival_place(cpu, key);

	if (a->key != key && cpu->gate)
		arrival_begin(a, key, sk);
	count_arrival(cpu, a, syn);
}

/* listener_arrival is the place of a listener that is at hand. Another may have come to its
 * address: then it has opened. */
static __always_inline struct arrival *listener_arrival(struct cpu_state *cpu, __u64 sk)
{
	__u64 key = sk ^ (__u64)listen_generation << 48;
	struct arrival *a = arrival_place(cpu, key);

	if (a->key != key)
		arrival_begin(a, key, sk);
	return a;
}

static __always_inline void count_arrival_of(struct cpu_state *cpu, __u64 sk, bool syn)
{
	count_arrival(cpu, listener_arrival(cpu, sk), syn);
}

#endif
