/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which branch of the listen path a packet took: by the counters that moved, and, where several
 * move the same ones, by what else happened.
 */
#ifndef SYNSPY_CLASSIFY_H
#define SYNSPY_CLASSIFY_H

#include "cpu_state.h"
#include "ledger.h"
#include "listener.h"
#include "packet.h"

/* said_by_counters names the branch that counters alone tell, where one is. */
static __always_inline __u8 said_by_counters(__u32 stage, __u32 moved)
{
	__u32 at = stage * MOVEMENTS + moved;

	asm volatile("" : "+r"(at)); /* the mask stays: see outcomes_of_free() */
	return outcomes_of[at & (4 * MOVEMENTS - 1)];
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

/* to_many reports whether a SYN was sent to a broadcast or multicast address. */
static __always_inline bool to_many(struct cpu_state *cpu, struct sk_buff *skb)
{
	struct rtable *route;

	if (cpu->packet.family == AF_INET6)
		return cpu->packet.server[0] == 0xff;
	route = (struct rtable *)(BPF_CORE_READ(skb, _skb_refdst) & SKB_DST_PTRMASK);
	return route && BPF_CORE_READ(route, rt_flags) & (RTCF_BROADCAST | RTCF_MULTICAST);
}

/* proven_by is for deaths that no event tells the reason and place of. */
static __always_inline void proven_by(struct verdict *v, __u8 proof)
{
	v->proof = proof;
	v->reason = 0;
	v->place = 0;
}

/* unrouted_since reports whether a route was missing in cpu->moved.net since this CPU last
 * looked: here, or at its last packet, whatever is known to be later. */
static __always_inline bool unrouted_since(struct cpu_state *cpu)
{
	__u64 net = cpu->moved.net, id = cpu->moved.id, now, last;
	__u32 place = namespace_index(net), v6 = cpu->packet.family == AF_INET6;
	struct tally *tally = tally_here(id);

	if (!tally)
		return false;
	now = unrouted_on(net, cpu->offset, v6);
	last = v6 ? tally->unrouted[1] : tally->unrouted[0];
	if (cpu->namespaces[place].id == id && cpu->namespaces[place].unrouted[v6] > last)
		last = cpu->namespaces[place].unrouted[v6];
	if (v6)
		tally->unrouted[1] = now;
	else
		tally->unrouted[0] = now;
	return now != last;
}

/* disambiguate names the branches that move the same counters by what else happened: the order is
 * the kernel's. skb is NULL where no packet is known. */
static __noinline int disambiguate(struct cpu_state *cpu, struct sk_buff *skb, struct verdict *v)
{
	__u8 of_lsm = 0, of_route = 0;
	__u64 net = cpu->moved.net, sk = v->sk;

	switch (v->outcome) {
	case OUTCOME_SYN_OTHER:
		if (skb && to_many(cpu, skb)) {
			v->outcome = OUTCOME_SYN_BAD_SYN_ADDRESS;
			return 0;
		}
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
		return 0;
	}
	if (cpu->denied && of_lsm) {
		v->proof = PROOF_RETURN;
		v->outcome = of_lsm;
	} else if (unrouted_since(cpu)) {
		v->outcome = of_route;
	} else if (v->outcome == OUTCOME_SYN_OTHER && sk &&
		   in_reserve((struct sock *)sk, (struct net *)net)) {
		v->proof = PROOF_STATE;
		v->outcome = OUTCOME_SYN_BACKLOG_RESERVE;
	}
	return 0;
}

#define AMBIGUOUS                                                        \
	(1ULL << OUTCOME_SYN_OTHER | 1ULL << OUTCOME_SYN_OTHER_COOKIES | \
	 1ULL << OUTCOME_ACK_OTHER | 1ULL << OUTCOME_ACK_OTHER_RESET |   \
	 1ULL << OUTCOME_ACK_OTHER_COOKIE | 1ULL << OUTCOME_ACK_OTHER_COOKIE_EARLY)

/* How a function of the listen path ended: enum stage, and, where it is so, one of these. */
enum ending {
	ENDING_STAGE = 3, /* a mask */
	ENDING_NO_SOCKET = 4, /* it returned none: the packet died */
	ENDING_OF_REQUEST = 8, /* it has a half-open handshake: tcp_check_req */
};

/* judge finds out which branch the packet in cpu->packet took, whose listener is in cpu->verdict.
 * Counters do not tell an RST from what was answered by one, nor a good cookie whose ACK died, so
 * that it made no connection. A global function: the verifier walks it once, and forgets which
 * outcome it was. */
__noinline int judge(__u64 skb, __u32 ending)
{
	struct cpu_state *cpu = this_cpu();
	struct verdict *v;
	__u8 outcome;

	if (!cpu)
		return 0;
	v = &cpu->verdict;
	proven_by(v, PROOF_COUNTERS);
	outcome = said_by_counters(ending & ENDING_STAGE, cpu->moved.bits);
	if (outcome == OUTCOME_ACK_BAD_RESET && cpu->packet.flags & TCP_FLAG_RST)
		outcome = OUTCOME_ACK_BAD_RST;
	if (outcome == OUTCOME_ACK_COOKIE_ACCEPTED && ending & ENDING_NO_SOCKET)
		outcome = OUTCOME_ACK_OTHER_COOKIE_EARLY;
	v->outcome = outcome;
	return AMBIGUOUS & 1ULL << outcome ? disambiguate(cpu, (struct sk_buff *)skb, v) : 0;
}

#endif
