/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What user space asks for. The ledger's opening and closing: run pinned to a CPU and
 * in process context, so that no packet of this CPU is half done. A softirq may
 * still come between two reads; then they are read again.
 */
#ifndef SYNSPY_SNAPSHOT_H
#define SYNSPY_SNAPSHOT_H

#include "counters.h"
#include "ledger.h"
#include "listener.h"
#include "cpu_state.h"
#include "maps.h"

#define SNAPSHOT_TRIES 2 /* Go asks again */

static __always_inline bool net_alive(struct net *net, __u64 id, __u32 inum)
{
	return net_id((__u64)net) == id && BPF_CORE_READ(net, ns.inum) == inum &&
	       net_references(net) > 0;
}

static __always_inline bool same(const __u64 *a, const __u64 *b)
{
	__u64 differs = 0;

#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++) {
		differs |= a[i] ^ b[i];
		/* Or the compiler makes ten branches of it, and the verifier walks 1,024 ways. */
		asm volatile("" : "+r"(differs));
	}
	return !differs;
}

/* read_all reads them by a function of its own, or the compiler keeps all their addresses. */
static __noinline int read_all(__u64 mib, __u64 *to)
{
	read_counters(mib, to, ALL_COUNTERS, false);
	return 0;
}

/* base_take keeps what a namespace's counters are on this CPU. */
static __noinline int base_take(struct cpu_state *cpu, __u64 id, struct net *net)
{
	struct namespace_cpu key = { .id = id, .cpu = bpf_get_smp_processor_id() };
	__u64 mib = (__u64)BPF_CORE_READ(net, mib.net_statistics) + cpu->offset;
	struct opening *opening = bpf_map_lookup_elem(&openings, &id);
	__u64 again[NUM_COUNTERS] = {};
	struct snapshot *out;
	__u32 zero = 0;
	__u64 any = 0;

	out = bpf_map_lookup_elem(&snapshots, &zero);
	if (!out || !opening)
		return ANSWER_FAILED;
	for (int i = 0; i < SNAPSHOT_TRIES; i++) {
		read_all(mib, out->now.counters);
		out->now.unrouted[0] = unrouted_on((__u64)net, cpu->offset, false);
		out->now.unrouted[1] = unrouted_on((__u64)net, cpu->offset, true);
		read_all(mib, again);
		if (same(out->now.counters, again))
			break;
	}
	any = out->now.unrouted[0] | out->now.unrouted[1];
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		any |= out->now.counters[i];
	if (any && bpf_map_update_elem(&bases, &key, &out->now, BPF_ANY))
		opening->unbased = 1;
	return ANSWER_DONE;
}

/* snapshot_take reads a namespace on this CPU. Where nothing moved there it has no tally: then
 * what was seen is what its counters were when it was opened. */
static __noinline int snapshot_take(struct cpu_state *cpu, __u64 id, struct net *net)
{
	struct namespace_cpu key = { .id = id, .cpu = bpf_get_smp_processor_id() };
	__u64 mib = (__u64)BPF_CORE_READ(net, mib.net_statistics) + cpu->offset;
	__u64 again[NUM_COUNTERS] = {};
	struct snapshot *out;
	struct tally *tally;
	struct base *base;
	__u32 zero = 0;

	out = bpf_map_lookup_elem(&snapshots, &zero);
	if (!out)
		return ANSWER_FAILED;
	out->stable = 0;
	for (int i = 0; i < SNAPSHOT_TRIES; i++) {
		read_all(mib, out->now.counters);
		tally = bpf_map_lookup_elem(&tallies, &key);
		if (tally) {
			bpf_probe_read_kernel(&out->tally, sizeof(*tally), tally);
		} else {
			__builtin_memset(&out->tally, 0, sizeof(out->tally));
			base = bpf_map_lookup_elem(&bases, &key);
			if (base)
				__builtin_memcpy(out->tally.seen, base->counters,
						 sizeof(out->tally.seen));
		}
		read_all(mib, again);
		if (same(out->now.counters, again)) {
			out->stable = 1;
			break;
		}
	}
	return ANSWER_DONE;
}

/* open_take fills in a row that Go made. */
static __always_inline int open_take(__u64 net)
{
	sum_all(net, SUM_OPENING);
	return ANSWER_DONE;
}

static __always_inline int sum_take(__u64 net)
{
	struct snapshot *out;
	__u32 zero = 0;

	out = bpf_map_lookup_elem(&snapshots, &zero);
	if (!out)
		return ANSWER_FAILED;
	__builtin_memset(&out->now, 0, sizeof(out->now));
	sum_all(net, SUM_SNAPSHOT);
	return ANSWER_DONE;
}

/* about_namespace answers what is asked of one, if it still is the one of that id. */
static __always_inline int about_namespace(__u64 request, __u64 id, __u64 address, __u32 inum)
{
	struct net *net = (struct net *)address;
	struct cpu_state *cpu = this_cpu();
	int answer = ANSWER_DONE;

	if (!cpu || !net_alive(net, id, inum))
		return cpu ? ANSWER_GONE : ANSWER_FAILED;
	if (request == REQUEST_BASE)
		answer = base_take(cpu, id, net);
	else if (request == REQUEST_SNAPSHOT)
		answer = snapshot_take(cpu, id, net);
	else if (request == REQUEST_OPEN)
		answer = open_take(address);
	else if (request == REQUEST_SUM)
		answer = sum_take(address);
	if (!net_alive(net, id, inum))
		return ANSWER_GONE;
	return answer;
}

/* read_listener reads a listener at its address, if that is still the one of that id: a program
 * is an RCU reader, and TCP's sockets are given back to TCP only. */
static __noinline int read_listener(__u64 address, __u64 id)
{
	struct sock *sk = (struct sock *)address;
	struct listener *l;
	__u32 zero = 0;

	l = bpf_map_lookup_elem(&listeners_read, &zero);
	if (!l)
		return ANSWER_FAILED;
	if (socket_id(address) != id || LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return ANSWER_GONE;
	l->proof = LISTENER_GIVEN;
	l->reuse_full = 0;
	listener_read(sk, l);
	if (socket_id(address) != id || LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return ANSWER_GONE;
	return ANSWER_DONE;
}

static __always_inline int answer_request(__u64 request, __u64 arg, __u64 net, __u64 inum)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu)
		return ANSWER_FAILED;
	switch (request) {
	case REQUEST_LOCATE:
		return locate(cpu) ? ANSWER_FAILED : ANSWER_DONE;
	case REQUEST_GATE:
		cpu->gate = arg;
		return ANSWER_DONE;
	case REQUEST_ALIVE:
	case REQUEST_BASE:
	case REQUEST_SNAPSHOT:
	case REQUEST_OPEN:
	case REQUEST_SUM:
		return about_namespace(request, arg, net, inum);
	case REQUEST_LISTENER:
		return read_listener(arg, net);
	}
	return ANSWER_FAILED;
}

#endif
