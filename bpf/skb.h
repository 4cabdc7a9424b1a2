/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is known of a packet apart from its bytes, and whether an event of it was seen. */
#ifndef SYNSPY_SKB_H
#define SYNSPY_SKB_H

#include "cpu_state.h"
#include "read.h"

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

#endif
