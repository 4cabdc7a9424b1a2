/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How the kernel's memory is read: by plain loads where a cast makes them safe, which is one
 * instruction for each, and else by a helper, which is a call. Every other header reads through
 * these.
 */
#ifndef SYNSPY_READ_H
#define SYNSPY_READ_H

#include "kernel.h"

/* "bpf: Add a kfunc for generic type cast" (6.2); for tracing programs only. */
const volatile bool have_rdonly_cast = false;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/* LOAD is BPF_CORE_READ of one step: a plain load where a cast is to be had. */
#define LOAD(type, pointer, field)                                                           \
	(have_rdonly_cast ?                                                                  \
		 ((type *)bpf_rdonly_cast((void *)(pointer), bpf_core_type_id_kernel(type))) \
			 ->field :                                                           \
		 BPF_CORE_READ((type *)(pointer), field))

/* read_words copies n words of 8 bytes: where a cast is to be had, by plain loads,
 * as if there were counters. Nothing is read from bad memory but zeros. */
static __always_inline void read_words(__u64 *to, const void *from, int n)
{
	if (have_rdonly_cast) {
		void *typed = bpf_rdonly_cast(from, bpf_core_type_id_kernel(struct linux_mib));

#pragma unroll
		for (int i = 0; i < n; i++)
			to[i] = *(__u64 *)(typed + i * 8);
		return;
	}
	bpf_probe_read_kernel(to, n * 8, from);
}

/* read_ip_start reads an IP header's first 16 bytes, and, where that costs nothing more, all 40
 * that IPv6 has: what lies behind the protocol is of use for TCP alone. */
static __always_inline void read_ip_start(__u64 *to, const void *from)
{
	read_words(to, from, have_rdonly_cast ? 2 : 5);
}

/* read_ip_rest reads n further words of it, where read_ip_start did not. */
static __always_inline void read_ip_rest(__u64 *to, const void *from, int n)
{
	if (have_rdonly_cast)
		read_words(to + 2, from + 16, n);
}

/* What parse needs of a packet's buffer. */
struct layout {
	unsigned char *head;
	__u32 network;
	__u32 transport;
	__u32 ifindex;
	__u32 tail;
};

/* layout_of reads it: by plain loads where a cast is to be had. */
static __always_inline struct layout layout_of(struct sk_buff *skb)
{
	if (have_rdonly_cast) {
		struct sk_buff *typed = bpf_rdonly_cast(skb,
							bpf_core_type_id_kernel(struct sk_buff));

		return (struct layout){ typed->head, typed->network_header, typed->transport_header,
					typed->skb_iif, typed->tail };
	}
	return (struct layout){ BPF_CORE_READ(skb, head), BPF_CORE_READ(skb, network_header),
				BPF_CORE_READ(skb, transport_header), BPF_CORE_READ(skb, skb_iif),
				BPF_CORE_READ(skb, tail) };
}

#endif
