/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet that was judged is counted for the ledger, filtered, counted for its listener, numbered
 * among its handshake's tries, rate limited, and told of. Counts are exact whatever becomes of the
 * record.
 */
#ifndef SYNSPY_ACCOUNT_H
#define SYNSPY_ACCOUNT_H

#include "attempts.h"
#include "classify.h"
#include "cpu_state.h"
#include "emit.h"
#include "filter.h"
#include "ledger.h"
#include "listener.h"
#include "maps.h"
#include "row.h"

/* choose_member tells which member of a SO_REUSEPORT group a packet was for, where the kernel
 * did not say and a lookup found some member: it is known if the group has one member, or only one
 * of them is full. */
static __noinline int choose_member(struct cpu_state *cpu, __u64 sk, struct verdict *v)
{
	v->sk = sk;
	v->listener_proof = LISTENER_UNKNOWN;
	if (!sk)
		return 0;
	count_group(sk);
	v->listener_proof = LISTENER_CHOSEN;
	if (cpu->group.members_full == 1)
		v->sk = cpu->group.full;
	else if (cpu->group.members >= 2)
		v->listener_proof = LISTENER_GROUP;
	return 0;
}

/* count_begin makes a listener's row, at its place if nobody has that: only then is the listener
 * read. What has a row already keeps it. */
static __noinline struct count *count_begin(struct cpu_state *cpu, __u64 sk, __u8 proof,
					    __u8 outcome, __u32 place)
{
	struct count_key key = { .id = socket_id(sk), .outcome = outcome };
	struct count *count = bpf_map_lookup_elem(&counts, &key), *at;

	if (count)
		return count;
	__builtin_memset(&cpu->new_count, 0, sizeof(cpu->new_count));
	identify(cpu, &cpu->new_count.listener, sk, proof);
	at = bpf_map_lookup_elem(&count_places, &place);
	if (at && !at->key.id && !bpf_map_update_elem(&count_owners, &place, &key, BPF_NOEXIST)) {
		at->listener = cpu->new_count.listener;
		at->key.outcome = outcome;
		at->key.id = key.id; /* last: without it the place is nobody's */
		return at;
	}
	if (!bpf_map_update_elem(&counts, &key, &cpu->new_count, BPF_NOEXIST))
		__sync_fetch_and_add(&counts_made, 1);
	count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		return count;
	key.id = 0; /* the table is full: "other listeners", made by Go at the start */
	__sync_fetch_and_add(&unlisted_drops, 1);
	return bpf_map_lookup_elem(&counts, &key);
}

/* count_of finds a listener's row, or makes it. */
static __always_inline struct count *count_of(struct cpu_state *cpu, __u64 sk, __u8 proof,
					      __u8 outcome)
{
	__u64 id = socket_id(sk);
	__u32 place = ((id ^ outcome) * 0x9e3779b97f4a7c15ULL >> 56) & (COUNT_PLACES - 1);
	struct count *at = bpf_map_lookup_elem(&count_places, &place);

	if (at && at->key.id == id && at->key.outcome == outcome)
		return at;
	return count_begin(cpu, sk, proof, outcome, place);
}

/* within_rate takes one of this second's records; losing a race lets one more by. */
static __always_inline bool within_rate(struct count *count, __u64 now)
{
	if (!rate)
		return true;
	if (now - count->window >= SECOND) {
		count->window = now;
		count->used = 0;
	}
	return count->used++ < rate;
}

/* count_filtered counts a packet that filters keep out. */
static __noinline int count_filtered(__u64 net, __u8 outcome)
{
	struct count_key key = { .id = net, .outcome = outcome };
	__u64 none = 0, *count = find_or_add(&filtered, &key, &none);

	if (!count) {
		key.id = 0; /* the table is full: "other namespaces", made by Go at the start */
		count = bpf_map_lookup_elem(&filtered, &key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

/* account_in counts a packet that was judged, in cpu->packet and cpu->moved, and lets its record
 * leave if filters and the rate allow. */
static __noinline int account_in(struct cpu_state *cpu, struct tally *tally, struct verdict *v)
{
	__u8 outcome = v->outcome, proof = v->listener_proof;
	__u32 attempt = 0, netns;
	__u64 now, sk = v->sk;
	struct record *record;
	struct count *count;

	if (outcome >= NUM_OUTCOMES)
		return 0;
	tally->outcomes[outcome]++;
	netns = tally->netns;
	if (!netns) { /* the tally of other namespaces */
		now = cpu->moved.net;
		netns = BPF_CORE_READ((struct net *)now, ns.inum);
	}
	if (!(filter.outcomes & 1ULL << outcome) ||
	    (filter_packets && !wanted_packet(&cpu->packet, sk, netns)) ||
	    !wanted_listener(sk, proof)) {
		count_filtered(tally->netns ? cpu->moved.id : 0, outcome);
		return 0;
	}
	if (!(emit_outcomes & 1ULL << outcome))
		return 0;
	now = coarse_time();
	if (is_drop(outcome) && has_packet(outcome))
		attempt = attempt_number(now);
	count = count_of(cpu, sk, proof, outcome);
	if (!count) {
		__sync_fetch_and_add(&uncounted, 1);
		return 0;
	}
	if (!within_rate(count, now)) {
		__sync_fetch_and_add(&count->suppressed, 1);
		if (attempt > 1)
			__sync_fetch_and_add(&count->again, 1);
		return 0;
	}
	if (capture)
		record = bpf_ringbuf_reserve(&ring, sizeof(struct captured), 0);
	else
		record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		__sync_fetch_and_add(&count->lost, 1);
		if (attempt > 1)
			__sync_fetch_and_add(&count->again, 1);
		return 0;
	}
	__sync_fetch_and_add(&count->delivered, 1);
	emit(cpu, record, v, netns, attempt);
	return 0;
}

/* account is account_in for where the tally is not at hand, with cpu->verdict: a global function,
 * so that the verifier walks it once and not for every caller. The outcome is handed over: a packet
 * may be freed in a task, and what a softirq judges meanwhile must not be counted twice. */
__noinline int account(__u8 outcome)
{
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;

	if (!cpu)
		return 0;
	tally = tally_here(cpu->moved.id);
	if (!tally)
		tally = tally_here(0); /* as find_tally found it */
	if (!tally)
		return 0;
	cpu->verdict.outcome = outcome;
	return account_in(cpu, tally, &cpu->verdict);
}

/* account_given is account for a death of which the kernel handed over the listener, and no event
 * tells the reason and place. */
static __always_inline int account_given(struct cpu_state *cpu, __u64 sk, __u8 outcome)
{
	struct verdict *v = &cpu->verdict;

	v->sk = sk;
	v->listener_proof = LISTENER_GIVEN;
	proven_by(v, PROOF_HELPER);
	return account(outcome);
}

#endif
