/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a settled packet to the ring buffer: counted for the ledger, filtered,
 * counted for its listener, numbered among its handshake's tries, rate limited,
 * written. Counts are exact whatever becomes of the record.
 */
#ifndef SYNSPY_RECORD_H
#define SYNSPY_RECORD_H

#include "filter.h"
#include "ledger.h"
#include "listener.h"
#include "cpu_state.h"
#include "maps.h"

#define SECOND 1000000000ULL
#define FORGET (180 * SECOND) /* longer than any client tries */
#define SAME_HANDSHAKE (1 << 20) /* bytes a client may have sent unanswered */

static __always_inline __u64 scramble(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

static __always_inline __u64 flow_hash(struct packet *p, __u64 id)
{
	__u64 *client = (__u64 *)p->client, *server = (__u64 *)p->server;
	/* id is a small number, like the ports: scrambled apart, or they cancel out. */
	__u64 hash = scramble(scramble(0, id), (__u64)p->client_port << 16 | p->server_port);

	hash = scramble(scramble(hash, client[0]), client[1]);
	return scramble(scramble(hash, server[0]), server[1]);
}

/* A SYN is sent again after two minutes at most (TCP_RTO_MAX), of which one may be lost on its way:
 * that is so many ticks where there are 1,000 in a second, and with fewer it is longer. */
#define LOST_LATELY (1 << 18)
#define LOST_GRAIN 64 /* CPUs do not write it at each drop */

static __always_inline void note_lost(void)
{
	__u64 now = bpf_jiffies64();

	if (now - syn_lost > LOST_GRAIN)
		syn_lost = now;
}

/* lost_lately tells whether a connection may be of a handshake that had a SYN dropped. */
static __always_inline bool lost_lately(void)
{
	return syn_lost && bpf_jiffies64() - syn_lost < LOST_LATELY;
}

/* attempt_number tells which dropped packet of its handshake this is, from a
 * table of a fixed size: a set that lately threw one out cannot tell a first
 * try from a later one, and says 0. */
__noinline __u32 attempt_number(__u64 now)
{
	struct cpu_state *cpu = this_cpu();
	struct attempt_set *set;
	struct packet *p;
	__u64 hash, print;
	__u32 index, lost = 0, way = 0;
	bool empty = false;

	if (!cpu)
		return 0;
	p = &cpu->packet;
	if (p->flags & TCP_FLAG_SYN) {
		lost = SYN_LOST;
		note_lost();
	}
	hash = flow_hash(p, cpu->moved.id);
	print = hash | 1;
	index = (hash >> 32) & (ATTEMPT_SETS - 1);
	set = bpf_map_lookup_elem(&attempts, &index);
	if (!set || !p->family)
		return 0;
	for (int i = 0; i < ATTEMPT_WAYS; i++) {
		struct attempt *a = &set->way[i];

		if (a->print == print) {
			__u32 ahead = p->isn - a->isn;

			if (p->flags & TCP_FLAG_SYN ? ahead == 0 : ahead < SAME_HANDSHAKE) {
				a->count = (a->count + 1) | lost;
				return a->count & ~SYN_LOST;
			}
			a->isn = p->isn; /* the port was used again */
			a->count = 1 | lost;
			cpu->attempts.handshakes++;
			return 1;
		}
		if (!a->print && !empty) {
			empty = true;
			way = i;
		}
	}
	cpu->attempts.handshakes++;
	if (!empty) {
		way = set->hand++;
		set->evicted = now;
		cpu->attempts.forgotten++;
	}
	set->way[way & (ATTEMPT_WAYS - 1)] = (struct attempt){ .print = print,
							       .isn = p->isn,
							       .count = 1 | lost };
	return set->evicted && now - set->evicted < FORGET ? 0 : 1;
}

/* came_again tells whether the handshake of a child that enters its accept queue had a SYN
 * dropped before: what then got through was sent again. */
__noinline int came_again(__u64 child)
{
	struct packet p = {};
	struct attempt_set *set;
	__u64 print;
	__u32 index, isn;

	if (!child)
		return 0;
	parse_request(&p, (struct sock *)child);
	print = flow_hash(&p, net_id((__u64)LOAD(struct sock, child, __sk_common.skc_net.net)));
	index = (print >> 32) & (ATTEMPT_SETS - 1);
	print |= 1;
	isn = LOAD(struct tcp_sock, child, rcv_nxt) - 1;
	set = bpf_map_lookup_elem(&attempts, &index);
	if (!set)
		return 0;
	for (int i = 0; i < ATTEMPT_WAYS; i++)
		if (set->way[i].print == print)
			return set->way[i].count & SYN_LOST &&
			       isn - set->way[i].isn < SAME_HANDSHAKE;
	return 0;
}

/* choose tells which member of a SO_REUSEPORT group a packet was for, where the
 * kernel handed none over: known only if there is one, or one alone is full. The
 * socket is left in cpu->lookup.found. */
static __noinline __u8 choose(struct cpu_state *cpu, __u64 sk)
{
	cpu->lookup.found = sk;
	if (!sk)
		return LISTENER_UNKNOWN;
	survey(sk);
	if (cpu->group.members_full == 1)
		cpu->lookup.found = cpu->group.full;
	return cpu->group.members < 2 || cpu->group.members_full == 1 ? LISTENER_CHOSEN :
									LISTENER_GROUP;
}

/* identify fills in a listener from its socket. */
static __noinline int identify(struct cpu_state *cpu, struct listener *l, __u64 sk, __u8 proof)
{
	l->id = 0;
	l->proof = proof;
	if (!sk)
		return 0;
	survey(sk);
	listener_read((struct sock *)sk, l);
	l->reuse_members = cpu->group.members;
	l->reuse_full = cpu->group.members_full;
	return 0;
}

static __always_inline bool is_drop(__u8 outcome)
{
	return outcome != OUTCOME_SYN_COOKIE_SENT && outcome != OUTCOME_SYN_FASTOPEN_QUEUE_FULL &&
	       outcome != OUTCOME_ACK_DEFER_ACCEPT;
}

/* has_packet: a timer's or a closing listener's victims are no packets. */
static __always_inline bool has_packet(__u8 outcome)
{
	return outcome != OUTCOME_TIMER_HANDSHAKE_EXPIRED &&
	       outcome != OUTCOME_TIMER_LISTENER_CLOSED && outcome != OUTCOME_CLOSE_LISTENER_CLOSED;
}

static __always_inline bool before_listener(__u8 outcome)
{
	return outcome >= OUTCOME_INGRESS_NO_LISTENER && outcome <= OUTCOME_INGRESS_OTHER_REFUSED;
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

/* wakeup wakes the reader when much waits. Else the kernel does for the first message in an empty
 * ring, which then waits for others: so does not each of them. */
static __always_inline __u64 wakeup(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= wakeup_bytes ? BPF_RB_FORCE_WAKEUP :
									     0;
}

/* wire_length is how long the packet was, by its IP header. */
static __always_inline __u32 wire_length(struct cpu_state *cpu)
{
	if (cpu->packet.family == AF_INET6)
		return 40 + bpf_ntohs(*(__be16 *)(cpu->wire.ip + IPV6_LENGTH));
	return bpf_ntohs(*(__be16 *)(cpu->wire.ip + IPV4_LENGTH));
}

/* copy_packet copies what lies together of it: the headers do. */
static __always_inline void copy_packet(struct cpu_state *cpu, struct captured *to, __u8 outcome)
{
	__u32 length = wire_length(cpu);

	if (length > cpu->wire.length)
		length = cpu->wire.length;
	if (length > MAX_CAPTURE)
		length = MAX_CAPTURE;
	length &= MAX_CAPTURE;
	to->length = 0;
	if (cpu->packet.family && has_packet(outcome) && outcome != OUTCOME_ICMP_ERROR &&
	    !bpf_probe_read_kernel(to->bytes, length, (void *)cpu->wire.start))
		to->length = length;
}

/* withhold counts a packet that filters keep out. */
static __noinline int withhold(__u64 net, __u8 outcome)
{
	struct count_key key = { .id = net, .outcome = outcome };
	__u64 *count = bpf_map_lookup_elem(&withheld, &key), none = 0;

	if (!count) {
		bpf_map_update_elem(&withheld, &key, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&withheld, &key);
	}
	if (!count) {
		key.id = 0; /* the table is full: "other namespaces", made by Go at the start */
		count = bpf_map_lookup_elem(&withheld, &key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

/* account_in takes a packet whose branch is known, in cpu->packet, cpu->moved.net and
 * cpu->moved.id. proof is of the listener. */
static __noinline int account_in(struct cpu_state *cpu, struct tally *tally, __u64 sk, __u8 proof,
				 __u8 outcome)
{
	struct record *record;
	struct count *count;
	struct packet *p;
	__u32 attempt = 0, netns;
	__u64 now, met;

	if (outcome >= NUM_OUTCOMES)
		return 0;
	p = &cpu->packet;
	netns = tally->netns;
	if (!netns) { /* the tally of other namespaces */
		now = cpu->moved.net;
		netns = BPF_CORE_READ((struct net *)now, ns.inum);
	}
	tally->outcomes[outcome]++;
	if (!(filter.outcomes & 1ULL << outcome) ||
	    (filter_packets && !wanted_packet(p, sk, netns)) || !wanted_listener(sk, proof)) {
		withhold(tally->netns ? cpu->moved.id : 0, outcome);
		return 0;
	}
	if (!(emit_outcomes & 1ULL << outcome))
		return 0;
	now = have_coarse ? bpf_ktime_get_coarse_ns() : bpf_ktime_get_ns();
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
	if (capture)
		copy_packet(cpu, (struct captured *)record, outcome);
	__sync_fetch_and_add(&count->delivered, 1);
	record->kind = MESSAGE_RECORD;
	record->outcome = outcome;
	record->family = p->family;
	record->proof = cpu->verdict.proof;
	record->attempt = attempt;
	record->reason = cpu->verdict.reason;
	record->netns = netns;
	record->place = cpu->verdict.place;
	record->time = bpf_ktime_get_ns();
	record->client_port = p->client_port;
	record->server_port = p->server_port;
	record->isn = p->isn;
	record->callers[0] = 0;
	record->callers[1] = 0;
	record->hook = HOOK_UNKNOWN;
	record->icmp_type = 0;
	record->icmp_code = 0;
	record->unsent = outcome == OUTCOME_TIMER_HANDSHAKE_EXPIRED && cpu->timer.early;
	record->pad = 0;
	record->device = before_listener(outcome) ? cpu->freed.device : 0;
	record->met_inode = 0;
	record->met_state = 0;
	met = cpu->freed.met; /* within LOAD it would be looked for in the kernel's types */
	if (outcome == OUTCOME_INGRESS_OTHER_CONNECTION && met) {
		record->met_state = LOAD(struct sock, met, __sk_common.skc_state);
		record->met_inode = socket_inode((struct sock *)met);
	}
	if (outcome == OUTCOME_INGRESS_NETFILTER || outcome == OUTCOME_INGRESS_NETFILTER_REJECT) {
		record->hook = cpu->freed.hook;
		record->callers[0] = cpu->freed.callers[0];
		record->callers[1] = cpu->freed.callers[1];
	}
	if (outcome == OUTCOME_INGRESS_NETFILTER_REJECT ||
	    outcome == OUTCOME_INGRESS_OTHER_REFUSED) {
		record->icmp_type = cpu->freed.icmp_type;
		record->icmp_code = cpu->freed.icmp_code;
	}
	__builtin_memcpy(record->client, p->client, 16);
	__builtin_memcpy(record->server, p->server, 16);
	__builtin_memset(&record->listener, 0, sizeof(record->listener));
	identify(cpu, &record->listener, sk, proof);
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

/* account is account_in for where the tally is not at hand: a global function, so that
 * the verifier walks it once and not for every caller. */
__noinline int account(__u64 sk, __u8 proof, __u8 outcome)
{
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;

	if (!cpu)
		return 0;
	tally = tally_here(cpu->moved.id);
	if (!tally)
		tally = tally_here(0); /* as tally_of found it */
	return tally ? account_in(cpu, tally, sk, proof, outcome) : 0;
}

#endif
