/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every object needs to know of IP. */
#ifndef SYNSPY_IP_H
#define SYNSPY_IP_H

#include "kernel.h"

static __always_inline void map_v4(__u8 *to, __be32 addr)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = addr;
}

static __always_inline bool is_ip(struct sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
}

#endif
