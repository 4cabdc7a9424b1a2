/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How many SYNs and final ACKs reached each listener. Counted in this CPU's
 * slot, on the path of every SYN; a map is touched only when two listeners
 * share a place and one must make room.
 */
#ifndef SYNSPY_ARRIVAL_H
#define SYNSPY_ARRIVAL_H

#include "maps.h"
#include "packet.h"

static __noinline int arrivals_flush(struct arrival *a)
{
	struct arrivals *total, fresh = { .syn = a->syn, .ack = a->ack };
	__u64 id = a->id;

	total = bpf_map_lookup_elem(&arrived, &id);
	if (total) {
		__sync_fetch_and_add(&total->syn, fresh.syn);
		__sync_fetch_and_add(&total->ack, fresh.ack);
		return 0;
	}
	if (!bpf_map_update_elem(&arrived, &id, &fresh, BPF_NOEXIST)) {
		__sync_fetch_and_add(&arrived_made, 1);
		return 0;
	}
	total = bpf_map_lookup_elem(&arrived, &id); /* another CPU made it this moment */
	if (!total) {
		id = 0; /* the table is full: "other listeners" */
		__sync_fetch_and_add(&unlisted_syns, fresh.syn);
		total = bpf_map_lookup_elem(&arrived, &id);
	}
	if (total) {
		__sync_fetch_and_add(&total->syn, fresh.syn);
		__sync_fetch_and_add(&total->ack, fresh.ack);
	}
	return 0;
}

static __always_inline struct arrival *arrival_of(struct slot *slot, __u64 key)
{
	__u32 index = (key * 0x9e3779b97f4a7c15ULL >> 56) & (KNOWN_ARRIVALS - 1);

	return &slot->arrivals[index];
}

static __always_inline void arrived_at(struct slot *slot, __u64 key, __u64 sk, bool syn)
{
	struct arrival *a = arrival_of(slot, key);

	if (!slot->gate)
		return;
	if (a->key != key) {
		if (a->key)
			arrivals_flush(a);
		a->key = key;
		a->sk = sk;
		a->id = socket_id(sk);
		a->syn = 0;
		a->ack = 0;
	}
	if (syn)
		a->syn++;
	else
		a->ack++;
}

/* arrived_at_socket counts for a listener that is at hand. Another may have come to its
 * address: then it has opened. */
static __always_inline void arrived_at_socket(struct slot *slot, __u64 sk, bool syn)
{
	arrived_at(slot, sk ^ (__u64)listen_generation << 48, sk, syn);
}

#endif
