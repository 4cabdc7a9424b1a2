/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The listener that a packet was for, where the kernel hands none over: the kernel's own lookup,
 * replayed over its own hash table.
 */
#ifndef SYNSPY_LOOKUP_H
#define SYNSPY_LOOKUP_H

#include "compat.h"
#include "cpu_state.h"
#include "listener.h"
#include "maps.h"
#include "packet.h"

#define MAX_CHAIN 1024 /* sockets of one hash bucket looked at */
#define OLD_MAX_CHAIN 64 /* where the verifier must walk every turn */

#define IPSKB_L3SLAVE (1 << 7)
#define IP6SKB_L3SLAVE 64

/* read_devices tells by which devices a packet came in, as the kernel's lookup is told them
 * (inet_iif and inet_sdif, tcp_v6_iif and tcp_v6_sdif). skb is 0 for a handshake's end: it has its
 * listener's device. */
static __always_inline void read_devices(struct cpu_state *cpu, __u64 skb)
{
	struct tcp_skb_cb *cb = (void *)skb + bpf_core_field_offset(struct sk_buff, cb);
	__u32 device = 0, flags;
	__u64 route;

	cpu->slave = 0;
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
			cpu->slave = BPF_CORE_READ(cb, header.h4.iif);
		return;
	}
	if (!bpf_core_field_exists(cb->header.h6))
		return;
	flags = BPF_CORE_READ(cb, header.h6.flags);
	device = BPF_CORE_READ(cb, header.h6.iif);
	if (flags & IP6SKB_L3SLAVE)
		cpu->slave = device;
	else
		cpu->packet.ifindex = device;
}

/* jhash of include/linux/jhash.h, as the listeners' hash table uses it. */
#define JHASH_INITVAL 0xdeadbeef

static __always_inline __u32 rol32(__u32 word, __u32 shift)
{
	return word << shift | word >> (32 - shift);
}

static __always_inline __u32 jhash_final(__u32 a, __u32 b, __u32 c)
{
	c ^= b;
	c -= rol32(b, 14);
	a ^= c;
	a -= rol32(c, 11);
	b ^= a;
	b -= rol32(a, 25);
	c ^= b;
	c -= rol32(b, 16);
	a ^= c;
	a -= rol32(c, 4);
	b ^= a;
	b -= rol32(a, 14);
	c ^= b;
	c -= rol32(b, 24);
	return c;
}

static __always_inline __u32 jhash_1word(__u32 word, __u32 initval)
{
	__u32 base = initval + JHASH_INITVAL + (1 << 2);

	return jhash_final(word + base, base, base);
}

static __always_inline __u32 jhash_4words(const __u32 *k, __u32 initval)
{
	__u32 base = JHASH_INITVAL + (4 << 2) + initval;
	__u32 a = base + k[0], b = base + k[1], c = base + k[2];

	a -= c;
	a ^= rol32(c, 4);
	c += b;
	b -= a;
	b ^= rol32(a, 6);
	a += c;
	c -= b;
	c ^= rol32(b, 8);
	b += a;
	a -= c;
	a ^= rol32(c, 16);
	c += b;
	b -= a;
	b ^= rol32(a, 19);
	a += c;
	c -= b;
	c ^= rol32(b, 4);
	b += a;
	return jhash_final(a + k[3], b, c);
}

/* reaches reports whether a listener is given what comes in by a device (inet_bound_dev_eq): what a
 * VRF's device got is for those that are bound to that or to the VRF, and for others only where
 * tcp_l3mdev_accept is on. */
static __always_inline bool reaches(struct net *net, __u32 bound, __u32 device, __u32 slave)
{
	if (bound)
		return bound == device || bound == slave;
	if (!slave || !bpf_core_field_exists(net->ipv4.sysctl_tcp_l3mdev_accept))
		return true;
	return sysctl_of(net, ipv4.sysctl_tcp_l3mdev_accept) & 0xff;
}

/* compute_score of net/ipv4/inet_hashtables.c and inet6_hashtables.c: 0 is no
 * match, more is better. A global function, so that the verifier walks it once, and not for each
 * socket of a bucket. */
__noinline __u32 score(__u64 address, __u64 net, __u32 wildcard)
{
	struct sock *sk = (struct sock *)address;
	__u8 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u64 here = bpf_get_smp_processor_id(), incoming;
	struct cpu_state *cpu = this_cpu();
	__u32 device, points = 1;
	__u32 bound[4] = {};
	struct packet *p;
	__u32 *want;

	if (!cpu)
		return 0;
	p = &cpu->packet;
	want = (__u32 *)p->server;
	if (BPF_CORE_READ(sk, __sk_common.skc_num) != p->server_port ||
	    BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN ||
	    (__u64)BPF_CORE_READ(sk, __sk_common.skc_net.net) != net)
		return 0;
	if (p->family == AF_INET && family == AF_INET6 &&
	    BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_ipv6only))
		return 0;
	if (p->family == AF_INET6 && family != AF_INET6)
		return 0;
	if (p->family == AF_INET) {
		bound[3] = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		if (bound[3] != (wildcard ? 0 : want[3]))
			return 0;
	} else {
		BPF_CORE_READ_INTO(&bound, sk, __sk_common.skc_v6_rcv_saddr);
		if (wildcard ? bound[0] | bound[1] | bound[2] | bound[3] :
			       bound[0] != want[0] || bound[1] != want[1] || bound[2] != want[2] ||
				       bound[3] != want[3])
			return 0;
	}
	device = BPF_CORE_READ(sk, __sk_common.skc_bound_dev_if);
	if (!reaches((struct net *)net, device, p->ifindex, cpu->slave))
		return 0;
	if (device) {
		points++;
		bound_found();
	}
	if (p->family == AF_INET && family == AF_INET)
		points++;
	incoming = (__u32)BPF_CORE_READ(sk, __sk_common.skc_incoming_cpu); /* -1: none */
	return points + 1 - less(here, incoming) - less(incoming, here);
}

/* in_group is 1 for a socket from whose SO_REUSEPORT group the kernel can choose,
 * else 0; unreadable: 0. */
static __always_inline __u64 in_group(struct sock *sk)
{
	struct sock_reuseport *group = BPF_CORE_READ(sk, sk_reuseport_cb);
	__u64 option = BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_reuseport);

	return less(0, BPF_CORE_READ(group, num_socks)) & option;
}

/* A walk along one bucket of lhash2 for the best match with cpu->packet. */
struct bucket_walk {
	__u64 node;
	__u64 net;
	__u64 best;
	__u64 most;
	bool wildcard;
};

/* bucket_step is one turn of inet_lhash2_lookup. It gives the packet to the first group
 * with a better match than all before it, whatever comes after. */
static long bucket_step(__u32 i, struct bucket_walk *w)
{
	__u64 sk, points, better, settled;

	if (!w->node || w->node & 1) /* the end of a list, of either kind */
		return 1;
	sk = listener_of_node(w->node);
	points = score(sk, w->net, w->wildcard);
	better = less(w->most, points);
	w->most = (points & -better) | (w->most & (better - 1));
	w->best = (sk & -better) | (w->best & (better - 1));
	settled = better & in_group((struct sock *)sk);
	if (bpf_probe_read_kernel(&w->node, 8, (void *)w->node))
		return 1;
	w->node &= settled - 1; /* no branch: the verifier would follow both, every turn */
	return 0;
}

/* No socket's address: not all of a bucket was seen, and what was found may not be whom the kernel
 * took. */
#define NOT_ALL_SEEN 1

/* search_bucket returns the best match of a bucket, 0 where there is none, or NOT_ALL_SEEN. A
 * global function for the same reason as survey. */
__noinline __u64 search_bucket(__u64 net, __u32 hash, __u32 wildcard)
{
	struct inet_hashinfo *info = listener_table((struct net *)net);
	struct bucket_walk w = { .net = net, .wildcard = wildcard };
	__u64 bucket;

	if (!info)
		return 0;
	bucket = (__u64)BPF_CORE_READ(info, lhash2) +
		 (__u64)(hash & BPF_CORE_READ(info, lhash2_mask)) *
			 bpf_core_type_size(struct inet_listen_hashbucket);
	w.node = first_node(bucket);
	REPEAT(MAX_CHAIN, OLD_MAX_CHAIN, bucket_step, &w);
	return w.node && !(w.node & 1) ? NOT_ALL_SEEN : w.best;
}

/* find_listener returns the listener that cpu->packet was for, or, of a
 * SO_REUSEPORT group, some member of it. 0: none found. */
static __noinline __u64 find_listener(struct cpu_state *cpu, __u64 net)
{
	__u32 mix = BPF_CORE_READ((struct net *)net, hash_mix);
	struct packet *p = &cpu->packet;
	__u32 *words = (__u32 *)p->server;
	__u32 exact;
	__u64 sk;

	exact = p->family == AF_INET ? jhash_1word(words[3], mix) : jhash_4words(words, mix);
	sk = search_bucket(net, exact ^ p->server_port, false);
	if (!sk)
		sk = search_bucket(net, jhash_1word(0, mix) ^ p->server_port, true);
	return sk == NOT_ALL_SEEN ? 0 : sk;
}

#endif
