/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The listening socket, as it stands, and the SO_REUSEPORT group that it is in. */
#ifndef SYNSPY_LISTENER_H
#define SYNSPY_LISTENER_H

#include "compat.h"
#include "cpu_state.h"
#include "maps.h"
#include "packet.h"

#define MAX_GROUP 1024 /* SO_REUSEPORT members looked at */
#define OLD_MAX_GROUP 64 /* where the verifier must walk every turn */

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
struct group_count {
	__u64 socks;
	__u64 full;
	__u64 last;
	__u64 drops;
	__u32 members;
};

static long count_member(__u32 i, struct group_count *p)
{
	__u64 is_full, member = 0;

	if (i >= p->members)
		return 1;
	bpf_probe_read_kernel(&member, 8, (void *)(p->socks + i * 8));
	/* unreadable: 0 and 0 */
	is_full = less(BPF_CORE_READ((struct sock *)member, sk_max_ack_backlog),
		       BPF_CORE_READ((struct sock *)member, sk_ack_backlog));
	if (!have_listen_path)
		p->drops += (__u32)BPF_CORE_READ((struct sock *)member, sk_drops.counter);
	p->full += is_full;
	p->last = (member & -is_full) | (p->last & (is_full - 1));
	return 0;
}

/* count_group looks at a SO_REUSEPORT group: cpu->group.members, how many of them are
 * full, the last of those, and what they dropped. Without branches on what it reads, and a global
 * function: the verifier follows one path through the loop, and only once. For
 * softirq context, where this CPU's state is ours. */
__noinline int count_group(__u64 address)
{
	struct sock_reuseport *group;
	struct cpu_state *cpu = this_cpu();
	struct group_count p = {};

	if (!cpu)
		return 0;
	cpu->group.members = 0;
	cpu->group.members_full = 0;
	cpu->group.full = 0;
	cpu->group.drops = have_listen_path ? 0 :
					      (__u32)LOAD(struct sock, address, sk_drops.counter);
	group = LOAD(struct sock, address, sk_reuseport_cb);
	if (!group)
		return 0;
	p.members = LOAD(struct sock_reuseport, group, num_socks);
	p.socks = (__u64)group + bpf_core_field_offset(struct sock_reuseport, socks);
	REPEAT(MAX_GROUP, OLD_MAX_GROUP, count_member, &p);
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

#endif
