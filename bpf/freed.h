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
#include "maps.h"
#include "record.h"
#include "steered.h"

static __always_inline bool within(const volatile struct range *ranges, int n, __u64 location)
{
#pragma unroll
	for (int i = 0; i < n; i++)
		if (location - ranges[i].start < ranges[i].end - ranges[i].start)
			return true;
	return false;
}

/* skb_net finds the namespace; the listen path clears skb->dev, the route has it. */
static __always_inline struct net *skb_net(struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;
	struct dst_entry *dst;

	if (dev)
		return BPF_CORE_READ(dev, nd_net.net);
	dst = (struct dst_entry *)(skb->_skb_refdst & SKB_DST_PTRMASK);
	return dst ? BPF_CORE_READ(dst, dev, nd_net.net) : NULL;
}

static __always_inline __u32 netns_of(__u64 net)
{
	return BPF_CORE_READ((struct net *)net, ns.inum);
}

/* Each of these programs is attached twice. The kernel skips a program that is
 * already running on this CPU, as when a softirq interrupts it in a task that
 * frees a packet of no interest; then its twin, which runs next, is not skipped.
 * seen_before tells the twin whether the first has taken the event. */
static __always_inline bool seen_before(struct slot *slot, __u64 event, bool twin)
{
	bool seen = twin && slot->event == event;

	slot->event = twin ? 0 : event;
	return seen;
}

static __always_inline bool is_syn(struct slot *slot)
{
	return (slot->packet.flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
}

static __always_inline struct tally *moved_in(struct slot *slot, __u64 net)
{
	return movement(slot, net,
			(__u64)BPF_CORE_READ((struct net *)net, mib.net_statistics) + slot->offset,
			SIGNS_ANY);
}

/* settle_freed gives a movement to the packet that is being freed. given: its listener,
 * if the kernel handed it over; likely: the one that a lookup found. died: see
 * outcome_of(). */
static __noinline int settle_freed(struct slot *slot, struct tally *tally, __u64 skb, __u64 likely,
				   __u8 stage)
{
	__u8 outcome, proof = LISTENER_GIVEN;
	__u64 sk = slot->given;

	if (!sk) {
		proof = choose(slot, likely);
		sk = slot->found;
	}
	outcome = outcome_of(skb, sk, stage);
	if (!slot->gate || outcome == OUTCOME_NONE)
		return unexplained(slot, tally);
	return account_in(slot, tally, sk, proof, outcome);
}

/* arrived_for counts an arrival by where it was sent to, and returns the listener,
 * or some member of its group. It is looked for once per place: listeners that
 * come or go change the key. */
static __noinline __u64 arrived_for(struct slot *slot, __u64 net, bool syn)
{
	struct packet *p = &slot->packet;
	__u64 *server = (__u64 *)p->server;
	__u64 key = scramble(scramble(net, server[0]), server[1]);
	struct arrival *a;
	__u64 sk;

	key = scramble(key, (__u64)listen_generation << 16 | p->server_port) | 1;
	a = arrival_of(slot, key);
	sk = a->key == key ? a->sk : receiver_of(slot, net);
	arrived_at(slot, key, sk, syn);
	return sk;
}

/* A SYN that was handled, dropped or answered, ends in consume_skb. */
static __always_inline int consumed(struct sk_buff *skb, __u64 location, bool twin)
{
	struct slot *slot;
	struct tally *tally;
	__u64 net, likely;
	bool icmp = false;

	if (have_consume_location) {
		if (!within(state_ranges, 4, location)) {
			if (!within(icmp_ranges, 4, location))
				return 0;
			icmp = true;
		}
	} else if (skb->dev || skb->sk) {
		/* Before 6.5 the place is not told: the listen path clears both. */
		return 0;
	}
	slot = this_slot();
	if (!slot || seen_before(slot, (__u64)skb, twin))
		return 0;
	net = number(slot, skb_net(skb));
	if (!net || (filter.netns && filter.netns != netns_of(net)))
		return 0;
	slot->given = 0;
	slot->died = false;
	if (icmp) {
		parse_quoted(slot, skb);
		tally = moved_in(slot, net);
		likely = tally && slot->packet.family ? receiver_of(slot, net) : 0;
		return tally ? settle_freed(slot, tally, 0, likely, STAGE_ICMP) : 0;
	}
	if (parse(slot, skb) || slot->packet.protocol != IPPROTO_TCP || !is_syn(slot))
		return 0;
	likely = arrived_for(slot, net, true);
	tally = moved_in(slot, net);
	if (tally)
		return settle_freed(slot, tally, number(slot, skb), likely, STAGE_SYN);
	note_routes(slot, net, slot->packet.family == AF_INET6);
	return 0;
}

/* An ACK that died in the listen path ends in kfree_skb with counters that moved. */
static __always_inline bool settled_by_counters(struct slot *slot, struct sk_buff *skb, __u64 net)
{
	struct tally *tally = moved_in(slot, net);
	__u64 likely = 0;
	bool syn = is_syn(slot);

	if (syn || tally) { /* a SYN sent again into its own request counts as seen */
		likely = arrived_for(slot, net, syn);
		slot->arrived = true;
	}
	if (!tally)
		return false;
	slot->died = true;
	settle_freed(slot, tally, number(slot, skb), likely, STAGE_ACK);
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
	struct slot *slot = this_slot();
	struct tally *tally;
	__u64 net, likely;

	if (!slot || seen_before(slot, (__u64)sk, twin))
		return 0;
	net = number(slot, sk->__sk_common.skc_net.net);
	if (filter.netns && filter.netns != netns_of(net))
		return 0;
	slot->orphan.key = 0; /* another listener took it over */
	parse_request(&slot->packet, sk);
	likely = arrived_for(slot, net, false);
	if (have_accepts && likely && slot->gate && !shares_port(likely))
		has_entered(socket_id(likely), likely, number(slot, sk), 0);
	tally = moved_in(slot, net);
	slot->given = 0;
	slot->died = false;
	return tally ? settle_freed(slot, tally, 0, likely, STAGE_ACK) : 0;
}

#endif
