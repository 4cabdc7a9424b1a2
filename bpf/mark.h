/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a hook learns of a packet that is freed later, left for kfree_skb: a packet is freed on the
 * CPU, and in the softirq, that handled it.
 */
#ifndef SYNSPY_MARK_H
#define SYNSPY_MARK_H

#include "cpu_state.h"
#include "packet.h"

/* begin_mark begins the mark of the packet in cpu->packet. */
static __always_inline struct mark *begin_mark(struct cpu_state *cpu, struct sk_buff *skb)
{
	cpu->mark = (struct mark){ .skb = as_number(cpu, skb), .print = fingerprint(&cpu->packet) };
	return &cpu->mark;
}

/* mark_of is its mark, begun if it has none. */
static __always_inline struct mark *mark_of(struct cpu_state *cpu, struct sk_buff *skb)
{
	__u64 print = fingerprint(&cpu->packet);

	if (cpu->mark.skb != (__u64)skb || cpu->mark.print != print)
		cpu->mark = (struct mark){ .skb = as_number(cpu, skb), .print = print };
	return &cpu->mark;
}

/* take_mark is its mark, which is used up; empty if it has none. */
static __always_inline struct mark take_mark(struct cpu_state *cpu, struct sk_buff *skb)
{
	struct mark mark = {};

	if (cpu->mark.skb == (__u64)skb && cpu->mark.print == fingerprint(&cpu->packet)) {
		mark = cpu->mark;
		cpu->mark.skb = 0;
	}
	return mark;
}

#endif
