/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tracepoints alone: every movement of the counters is followed, on the same
 * CPU and in the same softirq, by the event that frees the packet. The movement
 * since the last such event of the namespace on this CPU is this packet's.
 */
#ifndef SYNSPY_FREED_H
#define SYNSPY_FREED_H

#include "arrival.h"
#include "counters.h"
#include "ledger.h"
#include "listener.h"
#include "maps.h"
#include "record.h"

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

/* moved_since leaves in slot->delta what moved in net since this CPU's last
 * event of it, and returns its tally; NULL when nothing did. */
static __noinline struct tally *moved_since(struct slot *slot, __u64 net)
{
	__u64 id = net_id(net);
	struct tally *tally = bpf_map_lookup_elem(&tallies, &id);
	struct base_key key = { .id = id };
	struct opening *base;
	__u64 any = 0;

	slot->id = id;
	if (!tally) {
		if (slot->gate) /* what moved before is part of its opening values */
			tally_open(net, false);
		return NULL;
	}
	if (!tally->based) {
		/* One that opened while running has a base, closed gate or not; one
		 * that was there before gets it from the first snapshot. */
		if (!bpf_map_lookup_elem(&openings, &id))
			return NULL;
		key.cpu = bpf_get_smp_processor_id();
		base = bpf_map_lookup_elem(&bases, &key);
		if (base)
			__builtin_memcpy(tally->seen, base->counters, sizeof(tally->seen));
		tally->based = 1;
	}
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++) {
		slot->delta[i] = slot->now[i] - tally->seen[i];
		any |= slot->delta[i];
		tally->seen[i] = slot->now[i];
	}
	return any ? tally : NULL;
}

/* movement is moved_since behind a memory of the last sums, so that a packet
 * which moved nothing touches this CPU's slot and no map. */
static __always_inline struct tally *movement(struct slot *slot, __u64 net)
{
	__u64 mib = (__u64)BPF_CORE_READ((struct net *)net, mib.net_statistics) + slot->offset;
	/* Another namespace may have come to this address: then it has opened a listener. */
	__u64 digest = (__u64)listen_generation << 40;
	__u32 place = (net * 0x9e3779b97f4a7c15ULL >> 56) & (KNOWN_NAMESPACES - 1);

	read_counters(mib, slot->now, ALL_COUNTERS, true);
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		digest += slot->now[i];
	if (slot->known[place].net == net && slot->known[place].digest == digest)
		return NULL;
	slot->known[place].net = net;
	slot->known[place].digest = digest;
	return moved_since(slot, net);
}

/* unexplained books a movement that no packet at hand made. */
static __noinline int unexplained(struct slot *slot, struct tally *tally)
{
	__u64 *to = slot->gate ? tally->unattributed : tally->gated;

#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		to[i] += slot->delta[i];
	return 0;
}

static __noinline int settle_freed(struct slot *slot, struct tally *tally, __u64 given,
				   __u64 likely, __u8 stage)
{
	__u8 outcome = settled(slot, stage), proof = LISTENER_GIVEN;

	if (!slot->gate || outcome == OUTCOME_NONE)
		return unexplained(slot, tally);
	if (stage == STAGE_ICMP)
		return account(slot, tally, 0, LISTENER_UNKNOWN, outcome);
	if (!given)
		proof = choose(slot, likely);
	return account(slot, tally, given ? given : slot->found, proof, outcome);
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
	sk = a->key == key ? a->sk : listener_find(slot, net);
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
	if (icmp) {
		slot->packet.family = 0;
		tally = movement(slot, net);
		return tally ? settle_freed(slot, tally, 0, 0, STAGE_ICMP) : 0;
	}
	if (parse(slot, skb) || slot->packet.protocol != IPPROTO_TCP ||
	    (slot->packet.flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) != TCP_FLAG_SYN)
		return 0;
	likely = arrived_for(slot, net, true);
	tally = movement(slot, net);
	return tally ? settle_freed(slot, tally, 0, likely, STAGE_SYN) : 0;
}

/* An ACK that died ends in kfree_skb; so do many packets that are none of ours. */
static __always_inline int dropped(struct sk_buff *skb, __u64 location, struct sock *rx_sk,
				   bool twin)
{
	struct slot *slot;
	struct tally *tally;
	__u64 net, given = 0, likely = 0;
	bool syn;

	if (!within(rcv_ranges, MAX_RANGES, location))
		return 0;
	slot = this_slot();
	if (!slot || seen_before(slot, (__u64)skb, twin))
		return 0;
	net = number(slot, skb_net(skb));
	if (!net || (filter.netns && filter.netns != netns_of(net)))
		return 0;
	slot->packet.flags = 0;
	if (parse(slot, skb))
		return 0; /* what moved, if anything, stays for one that can be read */
	syn = (slot->packet.flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
	tally = movement(slot, net);
	if (syn || tally) /* a SYN sent again into its own request counts as seen */
		likely = arrived_for(slot, net, syn);
	if (!tally)
		return 0;
	if (rx_sk && BPF_CORE_READ(rx_sk, __sk_common.skc_state) == TCP_LISTEN)
		given = number(slot, rx_sk);
	return settle_freed(slot, tally, given, likely, STAGE_ACK);
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
	parse_request(&slot->packet, sk);
	likely = arrived_for(slot, net, false);
	tally = movement(slot, net);
	return tally ? settle_freed(slot, tally, 0, likely, STAGE_ACK) : 0;
}

#endif
