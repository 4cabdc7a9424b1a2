/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which dropped packet of its handshake one is, from a table of a fixed size, and whether a
 * connection's handshake had one.
 */
#ifndef SYNSPY_ATTEMPTS_H
#define SYNSPY_ATTEMPTS_H

#include "cpu_state.h"
#include "ledger.h"
#include "maps.h"
#include "packet.h"

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

/* lost_lately reports whether a connection may be of a handshake that had a SYN dropped. */
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

/* came_again reports whether the handshake of a child that enters its accept queue had a SYN
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

#endif
