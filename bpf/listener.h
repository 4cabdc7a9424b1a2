/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The listening socket: read as it stands, or, where the kernel hands none
 * over, found by replaying the kernel's own lookup over its own hash table.
 */
#ifndef SYNSPY_LISTENER_H
#define SYNSPY_LISTENER_H

#include "compat.h"
#include "cpu_state.h"
#include "maps.h"
#include "packet.h"

#define MAX_GROUP 1024 /* SO_REUSEPORT members looked at */
#define MAX_CHAIN 1024 /* sockets of one hash bucket looked at */
#define OLD_MAX_CHAIN 64 /* either, where the verifier must walk every turn */

static __always_inline __u64 socket_inode(struct sock *sk)
{
	struct socket *socket;
	__u64 offset;

	if (bpf_core_field_exists(sk->sk_ino)) /* 6.17 */
		return LOAD(struct sock, sk, sk_ino);
	socket = LOAD(struct sock, sk, sk_socket);
	if (!socket)
		return 0;
	offset = bpf_core_field_offset(struct socket_alloc, vfs_inode) -
		 bpf_core_field_offset(struct socket_alloc, socket);
	return LOAD(struct inode, (void *)socket + offset, i_ino);
}

static __always_inline __u64 socket_cgroup(struct sock *sk)
{
	struct cgroup *cgroup;

	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup)) {
		cgroup = LOAD(struct sock, sk, sk_cgrp_data.cgroup);
	} else {
		struct sock_cgroup_data___val *old = (void *)&sk->sk_cgrp_data;
		__u64 val = BPF_CORE_READ(old, val);

		if (val & 1) /* a v1 classid */
			return 0;
		cgroup = (struct cgroup *)val;
	}
	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : 0;
}

/* less is a < b as 1 or 0, kept from becoming a branch. For values below 2^63. */
static __always_inline __u64 less(__u64 a, __u64 b)
{
	__u64 sign = a - b;

	asm volatile("" : "+r"(sign));
	sign >>= 63;
	asm volatile("" : "+r"(sign));
	return sign;
}

/* A count over the members of a SO_REUSEPORT group. */
struct poll {
	__u64 socks;
	__u64 full;
	__u64 last;
	__u64 drops;
	__u32 members;
};

static long poll_member(__u32 i, struct poll *p)
{
	__u64 is_full, member = 0;

	if (i >= p->members)
		return 1;
	bpf_probe_read_kernel(&member, 8, (void *)(p->socks + i * 8));
	/* unreadable: 0 and 0 */
	is_full = less(BPF_CORE_READ((struct sock *)member, sk_max_ack_backlog),
		       BPF_CORE_READ((struct sock *)member, sk_ack_backlog));
	if (!have_path)
		p->drops += (__u32)BPF_CORE_READ((struct sock *)member, sk_drops.counter);
	p->full += is_full;
	p->last = (member & -is_full) | (p->last & (is_full - 1));
	return 0;
}

/* survey looks at a SO_REUSEPORT group: cpu->group.members, how many of them are
 * full, the last of those, and what they dropped. Without branches on what it reads, and a global
 * function: the verifier follows one path through the loop, and only once. For
 * softirq context, where this CPU's state is ours. */
__noinline int survey(__u64 address)
{
	struct sock_reuseport *group;
	struct cpu_state *cpu = this_cpu();
	struct poll p = {};

	if (!cpu)
		return 0;
	cpu->group.members = 0;
	cpu->group.members_full = 0;
	cpu->group.full = 0;
	cpu->group.drops = have_path ? 0 : (__u32)LOAD(struct sock, address, sk_drops.counter);
	group = LOAD(struct sock, address, sk_reuseport_cb);
	if (!group)
		return 0;
	p.members = LOAD(struct sock_reuseport, group, num_socks);
	p.socks = (__u64)group + bpf_core_field_offset(struct sock_reuseport, socks);
	if (have_loop) { /* 5.17 */
		bpf_loop(MAX_GROUP, poll_member, &p, 0);
	} else {
		for (__u32 i = 0; i < OLD_MAX_CHAIN; i++)
			if (poll_member(i, &p))
				break;
	}
	cpu->group.members = p.members;
	cpu->group.members_full = p.full;
	cpu->group.full = p.last;
	cpu->group.drops = p.drops;
	return 0;
}

static __always_inline void listener_state(struct sock *sk, struct listener *l)
{
	l->accept_len = LOAD(struct sock, sk, sk_ack_backlog);
	l->accept_limit = LOAD(struct sock, sk, sk_max_ack_backlog);
	l->syn_len = LOAD(struct inet_connection_sock, sk, icsk_accept_queue.qlen.counter);
	l->syn_young = LOAD(struct inet_connection_sock, sk, icsk_accept_queue.young.counter);
}

/* bound_to is the address that a socket is bound to, IPv4 v4-mapped. */
static __noinline int bound_to(__u64 sk, __u8 *addr)
{
	if (LOAD(struct sock, sk, __sk_common.skc_family) == AF_INET6)
		BPF_CORE_READ_INTO((struct in6_addr *)addr, (struct sock *)sk,
				   __sk_common.skc_v6_rcv_saddr);
	else
		map_v4(addr, LOAD(struct sock, sk, __sk_common.skc_rcv_saddr));
	return 0;
}

/* bound_found: from now on it matters to which listener goes what, by which device it came in. */
static __always_inline void bound_found(void)
{
	if (device_bound)
		return;
	device_bound = 1;
	__sync_fetch_and_add(&listen_generation, 1);
}

/* listener_read fills what the socket says of itself. */
static __noinline int listener_read(struct sock *sk, struct listener *l)
{
	struct sock_reuseport *group = LOAD(struct sock, sk, sk_reuseport_cb);
	struct net *net = LOAD(struct sock, sk, __sk_common.skc_net.net);

	l->reuse_members = group ? LOAD(struct sock_reuseport, group, num_socks) : 0;
	l->id = socket_id((__u64)sk);
	l->family = LOAD(struct sock, sk, __sk_common.skc_family);
	l->port = LOAD(struct sock, sk, __sk_common.skc_num);
	l->netns = LOAD(struct net, net, ns.inum);
	l->cookie = LOAD(struct sock, sk, __sk_common.skc_cookie.counter);
	l->inode = socket_inode(sk);
	l->cgroup = socket_cgroup(sk);
	bound_to((__u64)sk, l->addr);
	l->device = LOAD(struct sock, sk, __sk_common.skc_bound_dev_if);
	if (l->device)
		bound_found();
	listener_state(sk, l);
	return 0;
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

static __always_inline bool any_address(const __u8 *addr, __u8 family)
{
	const __u32 *words = (const __u32 *)addr;

	if (family == AF_INET6)
		return !(words[0] | words[1] | words[2] | words[3]);
	return !words[3];
}

/* sysctl_of reads one whose width differs between versions. */
#define sysctl_of(net, field)                                                            \
	({                                                                               \
		__u64 value = 0;                                                         \
		bpf_core_read(&value, bpf_core_field_size((net)->field), &(net)->field); \
		value;                                                                   \
	})

/* reaches tells whether a listener is given what comes in by a device (inet_bound_dev_eq): what a
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
	if (!reaches((struct net *)net, device, p->ifindex, cpu->lookup.slave))
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

/* listener_table is TCP's table of sockets. In 5.18 to 6.0 the namespace has it
 * behind a pointer; there, and before, the protocol has it too. */
static __always_inline struct inet_hashinfo *listener_table(struct net *net)
{
	if (bpf_core_field_exists(net->ipv4.tcp_death_row.hashinfo))
		return BPF_CORE_READ(net, ipv4.tcp_death_row.hashinfo);
	return (struct inet_hashinfo *)hashinfo;
}

/* A walk along one bucket of lhash2 for the best match with cpu->packet. */
struct walk {
	__u64 node;
	__u64 net;
	__u64 best;
	__u64 most;
	bool wildcard;
};

/* walk_step is one turn of inet_lhash2_lookup. It gives the packet to the first group
 * with a better match than all before it, whatever comes after. */
static long walk_step(__u32 i, struct walk *w)
{
	__u64 sk = w->node, points, better, settled;

	if (!w->node || w->node & 1) /* the end of a list, of either kind */
		return 1;
	if (bpf_core_field_exists(
		    ((struct inet_connection_sock___hlist *)0)->icsk_listen_portaddr_node))
		sk -= bpf_core_field_offset(struct inet_connection_sock___hlist,
					    icsk_listen_portaddr_node);
	else
		sk -= bpf_core_field_offset(struct sock, __sk_common.skc_nulls_node);
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

/* search leaves what it finds in cpu->lookup.found, and returns 1 where it did not see all of the
 * bucket: what it found may not be whom the kernel took. A global function for the same
 * reason as survey. */
__noinline int search(__u64 net, __u32 hash, __u32 wildcard)
{
	struct inet_hashinfo *info = listener_table((struct net *)net);
	struct walk w = { .net = net, .wildcard = wildcard };
	struct cpu_state *cpu = this_cpu();
	__u64 bucket;

	if (!cpu)
		return 0;
	cpu->lookup.found = 0;
	if (!info)
		return 0;
	bucket = (__u64)BPF_CORE_READ(info, lhash2) +
		 (__u64)(hash & BPF_CORE_READ(info, lhash2_mask)) *
			 bpf_core_type_size(struct inet_listen_hashbucket);
	if (bpf_core_field_exists(
		    ((struct inet_connection_sock___hlist *)0)->icsk_listen_portaddr_node))
		w.node = (__u64)BPF_CORE_READ((struct inet_listen_hashbucket___hlist *)bucket,
					      head.first);
	else
		w.node = (__u64)BPF_CORE_READ((struct inet_listen_hashbucket *)bucket,
					      nulls_head.first);
	if (have_loop) { /* 5.17 */
		bpf_loop(MAX_CHAIN, walk_step, &w, 0);
	} else {
		for (__u32 i = 0; i < OLD_MAX_CHAIN; i++)
			if (walk_step(i, &w))
				break;
	}
	if (w.node && !(w.node & 1))
		return 1;
	cpu->lookup.found = w.best;
	return 0;
}

/* listener_find returns the listener that cpu->packet was for, or, of a
 * SO_REUSEPORT group, some member of it. 0: none found. */
static __noinline __u64 listener_find(struct cpu_state *cpu, __u64 net)
{
	__u32 mix = BPF_CORE_READ((struct net *)net, hash_mix);
	struct packet *p = &cpu->packet;
	__u32 *words = (__u32 *)p->server;
	__u32 exact;

	exact = p->family == AF_INET ? jhash_1word(words[3], mix) : jhash_4words(words, mix);
	if (!search(net, exact ^ p->server_port, false) && !cpu->lookup.found)
		search(net, jhash_1word(0, mix) ^ p->server_port, true);
	return cpu->lookup.found;
}

#endif
