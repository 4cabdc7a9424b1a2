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
#include "maps.h"

#define SNAPSHOT_TRIES 2 /* Go asks again */

static __always_inline bool net_alive(struct net *net, __u64 id, __u32 inum)
{
	struct ns_common *ns = &net->ns;
	__u32 references = 0;

	if (net_id((__u64)net) != id || BPF_CORE_READ(ns, inum) != inum)
		return false;
	if (bpf_core_field_exists(((struct ns_common___ref *)ns)->__ns_ref))
		bpf_core_read(&references, 4, &((struct ns_common___ref *)ns)->__ns_ref);
	else if (bpf_core_field_exists(((struct ns_common___count *)ns)->count))
		bpf_core_read(&references, 4, &((struct ns_common___count *)ns)->count);
	else
		bpf_core_read(&references, 4, &((struct net___count *)net)->count);
	return references > 0;
}

static __always_inline bool same(const __u64 *a, const __u64 *b)
{
	__u64 differs = 0;

#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		differs |= a[i] ^ b[i];
	return !differs;
}

static __noinline int snapshot_take(struct slot *slot, __u64 key, struct net *net, __u32 inum)
{
	struct snapshot *out;
	struct tally *tally;
	__u64 mib;
	__u64 again[NUM_COUNTERS] = {};
	__u32 zero = 0;

	out = bpf_map_lookup_elem(&snapshots, &zero);
	tally = bpf_map_lookup_elem(&tallies, &key);
	if (!out || !tally)
		return ANSWER_FAILED;
	if (!net_alive(net, key, inum))
		return ANSWER_GONE;
	mib = (__u64)BPF_CORE_READ(net, mib.net_statistics) + slot->offset;
	tally->net = (__u64)net;
	tally->netns = inum;
	out->stable = 0;
	for (int i = 0; i < SNAPSHOT_TRIES; i++) {
		read_counters(mib, out->counters, ALL_COUNTERS, false);
		if (!tally->based) { /* what movements are measured from */
			__builtin_memcpy(tally->seen, out->counters, sizeof(tally->seen));
			tally->unrouted[0] = unrouted_on((__u64)net, slot->offset, false);
			tally->unrouted[1] = unrouted_on((__u64)net, slot->offset, true);
			tally->based = 1;
			read_counters(mib, again, ALL_COUNTERS, false);
			if (!same(out->counters, again)) {
				tally->based = 0;
				continue;
			}
		}
		bpf_probe_read_kernel(&out->tally, sizeof(*tally), tally);
		read_counters(mib, again, ALL_COUNTERS, false);
		if (same(out->counters, again)) {
			out->stable = 1;
			break;
		}
	}
	if (!net_alive(net, key, inum))
		return ANSWER_GONE;
	return ANSWER_DONE;
}

/* look reads a listener at its address, if that is still the one of that id: a program
 * is an RCU reader, and TCP's sockets are given back to TCP only. */
static __noinline int look(__u64 address, __u64 id)
{
	struct sock *sk = (struct sock *)address;
	struct listener *l;
	__u32 zero = 0;

	l = bpf_map_lookup_elem(&looks, &zero);
	if (!l)
		return ANSWER_FAILED;
	if (socket_id(address) != id || LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return ANSWER_GONE;
	l->proof = LISTENER_GIVEN;
	l->reuse_members = 0;
	l->reuse_full = 0;
	listener_read(sk, l);
	if (socket_id(address) != id || LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return ANSWER_GONE;
	return ANSWER_DONE;
}

static __always_inline int answer_request(__u64 request, __u64 arg, __u64 net, __u64 inum)
{
	struct slot *slot = this_slot();

	if (!slot)
		return ANSWER_FAILED;
	switch (request) {
	case REQUEST_LOCATE:
		return locate(slot) ? ANSWER_FAILED : ANSWER_DONE;
	case REQUEST_GATE:
		slot->gate = arg;
		return ANSWER_DONE;
	case REQUEST_ALIVE:
		return net_alive((struct net *)net, arg, inum) ? ANSWER_DONE : ANSWER_GONE;
	case REQUEST_SNAPSHOT:
		return snapshot_take(slot, arg, (struct net *)net, inum);
	case REQUEST_LISTENER:
		return look(arg, net);
	}
	return ANSWER_FAILED;
}

#endif
