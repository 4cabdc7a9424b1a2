/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tracepoints alone: every movement of the counters is followed, on the same
 * CPU and in the same softirq, by the event that frees the packet. The movement
 * since the last such event of the namespace on this CPU is this packet's.
 */
#ifndef SYNSPY_TRACEPOINT_H
#define SYNSPY_TRACEPOINT_H

#include "accept.h"
#include "account.h"
#include "arrivals.h"
#include "classify.h"
#include "code.h"
#include "counters.h"
#include "cpu_state.h"
#include "ledger.h"
#include "listener.h"
#include "lookup.h"
#include "maps.h"
#include "reqsk_timer.h"
#include "skb.h"
#include "steered.h"

static __always_inline struct tally *moved_in(struct cpu_state *cpu, __u64 net)
{
	return movement(cpu, net, SIGNS_ANY);
}

/* may_have_moved reports whether the listener that a lookup chose, which count_group() has just
 * looked at, can be the one that moved cpu->moved.delta. The lookup sees no program that gives
 * packets to others, and takes time: but ListenDrops moves with the listener's own sk_drops
 * (tcp_listendrop), and no cookie is sent beside a SYN queue that has room (tcp_conn_request).
 * Where nobody knows what sk_drops was before, a queue that is not full overflowed nothing. */
static __noinline bool may_have_moved(struct cpu_state *cpu, __u64 sk)
{
	struct arrival *a = arrival_place(cpu, cpu->arrival.key);
	bool known = a->key == cpu->arrival.key && !cpu->arrival.newcomer;
	__u64 before = known ? a->drops : 0, now = cpu->group.drops, net = cpu->moved.net;

	if (a->key == cpu->arrival.key)
		a->drops = now;
	cpu->arrival.newcomer = false;
	if (cpu->moved.delta[COUNTER_SYNCOOKIES_SENT] && cpu->group.members < 2)
		return (sysctl_of((struct net *)net, ipv4.sysctl_tcp_syncookies) & 0xff) == 2 ||
		       2 * (__u64)LOAD(struct inet_connection_sock, sk,
				       icsk_accept_queue.qlen.counter) >=
			       LOAD(struct sock, sk, sk_max_ack_backlog);
	if (!cpu->moved.delta[COUNTER_LISTEN_DROPS])
		return true;
	if (now == before)
		return false;
	if (known || !cpu->moved.delta[COUNTER_LISTEN_OVERFLOWS] || cpu->group.members_full)
		return true;
	return cpu->group.members < 2 &&
	       LOAD(struct sock, sk, sk_ack_backlog) > LOAD(struct sock, sk, sk_max_ack_backlog);
}

/* settle_freed gives a movement to the packet that is being freed. cpu->verdict.sk is its listener,
 * if the kernel handed it over; likely: the one that a lookup found. */
static __noinline int settle_freed(struct cpu_state *cpu, struct tally *tally, __u64 skb,
				   __u64 likely, __u32 ending)
{
	struct verdict *v = &cpu->verdict;

	if (v->sk) {
		v->listener_proof = LISTENER_GIVEN;
	} else {
		choose_member(cpu, likely, v);
		if (v->sk &&
		    !may_have_moved(cpu, v->sk)) { /* another, not seen here: nobody is named */
			v->listener_proof = LISTENER_UNKNOWN;
			v->sk = 0;
		}
	}
	judge(skb, ending);
	if (!cpu->gate || v->outcome == OUTCOME_NONE)
		return unexplained(cpu, tally);
	return account_in(cpu, tally, v);
}

/* find_and_count_arrival counts an arrival by where it was sent to, and returns the listener,
 * or some member of its group. It is looked for once per place: listeners that
 * come or go change the key. skb: see read_devices(). */
static __noinline __u64 find_and_count_arrival(struct cpu_state *cpu, __u64 net, __u64 skb,
					       bool syn)
{
	struct packet *p = &cpu->packet;
	__u64 *server = (__u64 *)p->server;
	__u64 key = scramble(scramble(net, server[0]), server[1]);
	struct arrival *a;
	__u64 sk;

	key = scramble(key, (__u64)listen_generation << 16 | p->server_port) | 1;
	if (device_bound) {
		read_devices(cpu, skb);
		key = scramble(key, (__u64)p->ifindex << 32 | cpu->slave) | 1;
	}
	a = arrival_place(cpu, key);
	cpu->arrival.key = key;
	cpu->arrival.newcomer = a->key != key;
	if (!cpu->arrival.newcomer) {
		sk = a->sk;
		count_arrival_by_key(cpu, key, sk, syn);
		return sk;
	}
	if (!device_bound)
		read_devices(cpu, skb);
	sk = find_receiver(cpu, net);
	count_arrival_by_key(cpu, key, sk, syn);
	if (sk && a->key == key) {
		count_group(sk);
		a->drops = cpu->group.drops;
	}
	return sk;
}

/* A SYN that was handled, dropped or answered, ends in consume_skb. */
static __always_inline int skb_consumed(struct sk_buff *skb, __u64 location, bool twin)
{
	struct cpu_state *cpu;
	struct tally *tally;
	__u64 net, likely;
	bool icmp;

	/* Most packets that end here are none of ours, or not even of IP. */
	if (!is_ip(skb))
		return 0;
	icmp = skb->dev; /* the listen path clears that, and the socket */
	if (have_consume_location) {
		if (icmp ? !in_code(icmp_ranges, 4, location) : !in_code(state_ranges, 4, location))
			return 0;
	} else if (icmp || skb->sk) {
		return 0; /* before 6.5 the place is not told */
	}
	cpu = this_cpu();
	if (!cpu || seen_before(cpu, (__u64)skb, twin))
		return 0;
	net = as_number(cpu, skb_net(skb));
	if (!net || (filter.netns && filter.netns != netns_of(net)))
		return 0;
	cpu->verdict.sk = 0;
	if (icmp) {
		parse_quoted(cpu, skb);
		tally = moved_in(cpu, net);
		cpu->arrival.key = 0;
		cpu->arrival.newcomer = true;
		cpu->slave = 0;
		likely = tally && cpu->packet.family ? find_receiver(cpu, net) : 0;
		return tally ? settle_freed(cpu, tally, 0, likely, STAGE_ICMP) : 0;
	}
	if (parse(cpu, skb) || !is_syn(cpu))
		return 0;
	likely = find_and_count_arrival(cpu, net, as_number(cpu, skb), true);
	tally = moved_in(cpu, net);
	if (tally)
		return settle_freed(cpu, tally, as_number(cpu, skb), likely, STAGE_SYN);
	note_routes(cpu, net, cpu->packet.family == AF_INET6);
	return 0;
}

/* An ACK that died in the listen path ends in kfree_skb with counters that moved. */
static __always_inline bool settled_by_counters(struct cpu_state *cpu, struct sk_buff *skb,
						__u64 net)
{
	struct tally *tally = moved_in(cpu, net);
	__u64 likely = 0;
	bool syn = is_syn(cpu);

	if (syn || tally) /* a SYN sent again into its own request counts as seen */
		likely = find_and_count_arrival(cpu, net, as_number(cpu, skb), syn);
	if (!tally)
		return false;
	settle_freed(cpu, tally, as_number(cpu, skb), likely, STAGE_ACK | ENDING_NO_SOCKET);
	return true;
}

/* shares_port: of a SO_REUSEPORT group only some member was found, maybe another one. */
static __always_inline bool shares_port(__u64 sk)
{
	struct sock_reuseport *group = LOAD(struct sock, sk, sk_reuseport_cb);

	return group && LOAD(struct sock_reuseport, group, num_socks) > 1;
}

/* A handshake that succeeded: no packet is freed, and a valid cookie moved a
 * counter that must not be left for the next packet. */
static __always_inline int handshake_established(struct sock *sk, bool twin)
{
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;
	__u64 net, likely;

	if (!cpu || seen_before(cpu, (__u64)sk, twin))
		return 0;
	net = as_number(cpu, sk->__sk_common.skc_net.net);
	if (filter.netns && filter.netns != netns_of(net))
		return 0;
	forget_dropped_request(cpu); /* another listener took it over */
	parse_request(&cpu->packet, sk);
	likely = find_and_count_arrival(cpu, net, 0, false);
	if (have_accepts && likely && cpu->gate && !shares_port(likely))
		count_entered(arrival_place(cpu, cpu->arrival.key), likely, as_number(cpu, sk), 0);
	tally = moved_in(cpu, net);
	cpu->verdict.sk = 0;
	return tally ? settle_freed(cpu, tally, 0, likely, STAGE_ACK) : 0;
}

#endif
