/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tracepoints alone: every movement of the counters is followed, on the same
 * CPU and in the same softirq, by the event that frees the packet. The movement
 * since the last such event of the namespace on this CPU is this packet's.
 */
#ifndef SYNSPY_FREED_H
#define SYNSPY_FREED_H

#include "accept.h"
#include "arrival.h"
#include "counters.h"
#include "ledger.h"
#include "listener.h"
#include "cpu_state.h"
#include "maps.h"
#include "record.h"
#include "steered.h"

/* skb_net finds the namespace; the listen path clears skb->dev, the route has it. */
static __always_inline struct net *skb_net(struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;
	struct dst_entry *dst;

	if (dev)
		return LOAD(struct net_device, dev, nd_net.net);
	dst = (struct dst_entry *)(skb->_skb_refdst & SKB_DST_PTRMASK);
	if (!dst)
		return NULL;
	dev = LOAD(struct dst_entry, dst, dev);
	return dev ? LOAD(struct net_device, dev, nd_net.net) : NULL;
}

static __always_inline __u32 netns_of(__u64 net)
{
	return LOAD(struct net, net, ns.inum);
}

/* Each of these programs is attached twice. The kernel skips a program that is
 * already running on this CPU, as when a softirq interrupts it in a task that
 * frees a packet of no interest; then its twin, which runs next, is not skipped.
 * seen_before tells the twin whether the first has taken the event. */
static __always_inline bool seen_before(struct cpu_state *cpu, __u64 event, bool twin)
{
	bool seen = twin && cpu->event == event;

	cpu->event = twin ? 0 : event;
	return seen;
}

static __always_inline bool is_syn(struct cpu_state *cpu)
{
	return (cpu->packet.flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
}

static __always_inline struct tally *moved_in(struct cpu_state *cpu, __u64 net)
{
	return movement(cpu, net, SIGNS_ANY);
}

/* fits tells whether the listener that a lookup chose, which survey() has just looked at, can be
 * the one that moved cpu->moved.delta. The lookup sees no program that gives packets to others, and
 * takes time: but ListenDrops moves with the listener's own sk_drops (tcp_listendrop), and no
 * cookie is sent beside a SYN queue that has room (tcp_conn_request). Where nobody knows what
 * sk_drops was before, a queue that is not full overflowed nothing. */
static __noinline bool fits(struct cpu_state *cpu, __u64 sk)
{
	struct arrival *a = arrival_of(cpu, cpu->arrival.key);
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

/* settle_freed gives a movement to the packet that is being freed. given: its listener,
 * if the kernel handed it over; likely: the one that a lookup found. died: see
 * outcome_of(). */
static __noinline int settle_freed(struct cpu_state *cpu, struct tally *tally, __u64 skb,
				   __u64 likely, enum stage stage)
{
	__u8 outcome, proof = LISTENER_GIVEN;
	__u64 sk = cpu->freed.given;

	if (!sk) {
		proof = choose(cpu, likely);
		sk = cpu->lookup.found;
		if (sk && !fits(cpu, sk)) { /* another, not seen here: nobody is named */
			proof = LISTENER_UNKNOWN;
			sk = 0;
		}
	}
	outcome = outcome_of(skb, sk, stage);
	if (!cpu->gate || outcome == OUTCOME_NONE)
		return unexplained(cpu, tally);
	return account_in(cpu, tally, sk, proof, outcome);
}

#define IPSKB_L3SLAVE (1 << 7)
#define IP6SKB_L3SLAVE 64

/* came_by tells by which devices a packet came in, as the kernel's lookup is told them (inet_iif
 * and inet_sdif, tcp_v6_iif and tcp_v6_sdif). skb is 0 for a handshake's end: it has its
 * listener's device. */
static __always_inline void came_by(struct cpu_state *cpu, __u64 skb)
{
	struct tcp_skb_cb *cb = (void *)skb + bpf_core_field_offset(struct sk_buff, cb);
	__u32 device = 0, flags;
	__u64 route;

	cpu->lookup.slave = 0;
	if (!skb)
		return;
	if (cpu->packet.family == AF_INET) {
		route = BPF_CORE_READ((struct sk_buff *)skb, _skb_refdst) & SKB_DST_PTRMASK;
		if (route)
			device = BPF_CORE_READ((struct rtable *)route, rt_iif);
		if (device)
			cpu->packet.ifindex = device;
		if (!bpf_core_field_exists(cb->header.h4))
			return;
		flags = BPF_CORE_READ(cb, header.h4.flags);
		if (flags & IPSKB_L3SLAVE)
			cpu->lookup.slave = BPF_CORE_READ(cb, header.h4.iif);
		return;
	}
	if (!bpf_core_field_exists(cb->header.h6))
		return;
	flags = BPF_CORE_READ(cb, header.h6.flags);
	device = BPF_CORE_READ(cb, header.h6.iif);
	if (flags & IP6SKB_L3SLAVE)
		cpu->lookup.slave = device;
	else
		cpu->packet.ifindex = device;
}

/* arrived_for counts an arrival by where it was sent to, and returns the listener,
 * or some member of its group. It is looked for once per place: listeners that
 * come or go change the key. skb: see came_by(). */
static __noinline __u64 arrived_for(struct cpu_state *cpu, __u64 net, __u64 skb, bool syn)
{
	struct packet *p = &cpu->packet;
	__u64 *server = (__u64 *)p->server;
	__u64 key = scramble(scramble(net, server[0]), server[1]);
	struct arrival *a;
	__u64 sk;

	key = scramble(key, (__u64)listen_generation << 16 | p->server_port) | 1;
	if (device_bound) {
		came_by(cpu, skb);
		key = scramble(key, (__u64)p->ifindex << 32 | cpu->lookup.slave) | 1;
	}
	a = arrival_of(cpu, key);
	cpu->arrival.key = key;
	cpu->arrival.newcomer = a->key != key;
	if (!cpu->arrival.newcomer) {
		sk = a->sk;
		arrived_at(cpu, key, sk, syn);
		return sk;
	}
	if (!device_bound)
		came_by(cpu, skb);
	sk = receiver_of(cpu, net);
	arrived_at(cpu, key, sk, syn);
	if (sk && a->key == key) {
		survey(sk);
		a->drops = cpu->group.drops;
	}
	return sk;
}

/* A SYN that was handled, dropped or answered, ends in consume_skb. */
static __always_inline int consumed(struct sk_buff *skb, __u64 location, bool twin)
{
	struct cpu_state *cpu;
	struct tally *tally;
	__u64 net, likely;
	bool icmp;

	/* Most packets that end here are none of ours, or not even of IP. */
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
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
	net = number(cpu, skb_net(skb));
	if (!net || (filter.netns && filter.netns != netns_of(net)))
		return 0;
	cpu->freed.given = 0;
	cpu->call.died = false;
	if (icmp) {
		parse_quoted(cpu, skb);
		tally = moved_in(cpu, net);
		cpu->arrival.key = 0;
		cpu->arrival.newcomer = true;
		cpu->lookup.slave = 0;
		likely = tally && cpu->packet.family ? receiver_of(cpu, net) : 0;
		return tally ? settle_freed(cpu, tally, 0, likely, STAGE_ICMP) : 0;
	}
	if (parse(cpu, skb) || !is_syn(cpu))
		return 0;
	likely = arrived_for(cpu, net, number(cpu, skb), true);
	tally = moved_in(cpu, net);
	if (tally)
		return settle_freed(cpu, tally, number(cpu, skb), likely, STAGE_SYN);
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

	if (syn || tally) { /* a SYN sent again into its own request counts as seen */
		likely = arrived_for(cpu, net, number(cpu, skb), syn);
		cpu->freed.arrived = true;
	}
	if (!tally)
		return false;
	cpu->call.died = true;
	settle_freed(cpu, tally, number(cpu, skb), likely, STAGE_ACK);
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
static __always_inline int established(struct sock *sk, bool twin)
{
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;
	__u64 net, likely;

	if (!cpu || seen_before(cpu, (__u64)sk, twin))
		return 0;
	net = number(cpu, sk->__sk_common.skc_net.net);
	if (filter.netns && filter.netns != netns_of(net))
		return 0;
	cpu->orphan.key = 0; /* another listener took it over */
	parse_request(&cpu->packet, sk);
	likely = arrived_for(cpu, net, 0, false);
	if (have_accepts && likely && cpu->gate && !shares_port(likely))
		has_entered(arrival_of(cpu, cpu->arrival.key), likely, number(cpu, sk), 0);
	tally = moved_in(cpu, net);
	cpu->freed.given = 0;
	cpu->call.died = false;
	return tally ? settle_freed(cpu, tally, 0, likely, STAGE_ACK) : 0;
}

#endif
