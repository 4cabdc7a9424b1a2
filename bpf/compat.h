/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What has another shape, name or place on other kernels, and how to read it on each. Nothing else
 * knows of that. The title is that of the kernel's commit which changed it, with the version that
 * it came with; where kernels were compared and no title is known, the version alone. Which one is
 * read is decided by Go, from BTF or by trying, or by CO-RE.
 */
#ifndef SYNSPY_COMPAT_H
#define SYNSPY_COMPAT_H

#include "drop_reason.h"
#include "kernel.h"
#include "read.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Before "net: inet: Retire port only listening_hash" (5.19) the listeners of a
 * lhash2 bucket hung together by an hlist of their own. */
struct inet_listen_hashbucket___hlist {
	struct hlist_head head;
};
struct inet_connection_sock___hlist {
	struct hlist_node icsk_listen_portaddr_node;
};

/* Before "bpf, cgroups: Fix cgroup v2 fallback on v1/v2 mixed mode" (5.15) the
 * cgroup shared a word with the v1 classid, its low bit telling which it was. */
struct sock_cgroup_data___val {
	u64 val;
};

/* The reference count of a namespace moved from struct net into ns_common with "net: Use generic
 * ns_common::count" (5.11), and was renamed there in 6.18. */
typedef struct {
	atomic_t refs;
} refcount_t;
struct net___count {
	refcount_t count;
};
struct ns_common___count {
	refcount_t count;
};
struct ns_common___ref {
	refcount_t __ns_ref;
};

#pragma clang attribute pop

/* Helpers. */
const volatile bool have_loop = false; /* "bpf: Add bpf_loop helper" (5.17) */
const volatile bool have_coarse = false; /* "bpf: Add bpf_ktime_get_coarse_ns helper" (5.11) */
const volatile bool have_task_pt_regs = false; /* "bpf: Add bpf_task_pt_regs() helper" (5.15) */
/* "bpf: Expose bpf_get_socket_cookie to tracing programs" (5.12) */
const volatile bool have_socket_cookie = false;
const volatile bool have_sock_from_file = false; /* "bpf: Add a bpf_sock_from_file helper" (5.11) */

/* REPEAT calls a function with 0, 1, 2 and so on until it returns not 0: max times at most, or
 * old_max times where the verifier must walk every turn. */
#define REPEAT(max, old_max, turn, context)                 \
	do {                                                \
		if (have_loop) {                            \
			bpf_loop(max, turn, context, 0);    \
		} else {                                    \
			for (__u32 i = 0; i < old_max; i++) \
				if (turn(i, context))       \
					break;              \
		}                                           \
	} while (0)

/* coarse_time is good to a tick, and costs less. */
static __always_inline __u64 coarse_time(void)
{
	return have_coarse ? bpf_ktime_get_coarse_ns() : bpf_ktime_get_ns();
}

/* give_cookie gives a socket one, as ss -e does. */
static __always_inline void give_cookie(struct sock *sk)
{
	if (have_socket_cookie)
		bpf_get_socket_cookie(sk);
}

/* Where the exit of a function finds what it returned: behind the arguments, whose number changed.
 * A helper tells it since 5.17 only. 0: Go has not set it. */
const volatile __u32 check_req_args = 0;
const volatile __u32 timewait_args = 0;
const volatile __u32 accept_args = 0;
const volatile __u32 listen_args = 0;

/* ARGUMENT is one of a trampoline, by its offset. Left to itself the compiler makes
 * one load of a chosen address out of two, which the verifier refuses. */
#define ARGUMENT(ctx, offset)                                                             \
	({                                                                                \
		__u64 value;                                                              \
		asm volatile("%0 = *(u64 *)(%1 + " #offset ")" : "=r"(value) : "r"(ctx)); \
		value;                                                                    \
	})

/* (sk, skb, req, fastopen, req_stolen), and a drop reason with "tcp: add a drop_reason pointer to
 * tcp_check_req()" (6.15) */
static __always_inline __u64 tcp_check_req_returned(__u64 *ctx)
{
	return check_req_args == 6 ? ARGUMENT(ctx, 48) : ARGUMENT(ctx, 40);
}

/* (tw, skb, th), then a sequence number with "tcp: replace TCP_SKB_CB(skb)->tcp_tw_isn with a
 * per-cpu field" (6.10), and a drop reason with "tcp: add TCP_RFC7323_TW_PAWS drop reason"
 * (6.15) */
static __always_inline __u64 tcp_timewait_state_process_returned(__u64 *ctx)
{
	return timewait_args == 5 ? ARGUMENT(ctx, 40) :
	       timewait_args == 4 ? ARGUMENT(ctx, 32) :
				    ARGUMENT(ctx, 24);
}

/* (sk, flags, err, kern), and (sk, arg) with "net: change proto and proto_ops accept type"
 * (6.10) */
static __always_inline __u64 inet_csk_accept_returned(__u64 *ctx)
{
	return accept_args == 2 ? ARGUMENT(ctx, 16) : ARGUMENT(ctx, 32);
}

/* (sk, backlog), and (sk) with "dccp/tcp: Remove an unused argument in inet_csk_listen_start()"
 * (5.17) */
static __always_inline int inet_csk_listen_start_returned(__u64 *ctx)
{
	return listen_args == 2 ? ARGUMENT(ctx, 16) : ARGUMENT(ctx, 8);
}

const volatile bool have_rx_sk = false; /* "net: add rx_sk to trace_kfree_skb" (6.11) */
/* kfree_skb_socket is the socket that a packet was for; NULL: none, or not told. */
static __always_inline struct sock *kfree_skb_socket(__u64 *ctx)
{
	return have_rx_sk ? (struct sock *)ctx[3] : NULL;
}

const volatile bool have_consume_location =
	false; /* "net: add location to trace_consume_skb()": in 6.5, not in 6.1 */
/* consume_skb_location is who frees; 0: not told. */
static __always_inline __u64 consume_skb_location(__u64 *ctx)
{
	return have_consume_location ? ctx[1] : 0;
}

/* net_id names a namespace for ever. Its address does not: the memory of one that ends goes to the
 * next that begins, mostly at once. Before "net: initialize net->net_cookie at netns setup" (5.12)
 * a namespace has no cookie, and its inode with its random hash_mix serves as well. */
static __always_inline __u64 net_id(__u64 net)
{
	struct net *n = (struct net *)net;

	if (!bpf_core_field_exists(n->net_cookie))
		return (__u64)BPF_CORE_READ(n, hash_mix) << 32 | BPF_CORE_READ(n, ns.inum);
	return LOAD(struct net, n, net_cookie);
}

static __always_inline __u32 net_references(struct net *net)
{
	struct ns_common *ns = &net->ns;
	__u32 references = 0;

	if (bpf_core_field_exists(((struct ns_common___ref *)ns)->__ns_ref))
		bpf_core_read(&references, 4, &((struct ns_common___ref *)ns)->__ns_ref);
	else if (bpf_core_field_exists(((struct ns_common___count *)ns)->count))
		bpf_core_read(&references, 4, &((struct ns_common___count *)ns)->count);
	else
		bpf_core_read(&references, 4, &((struct net___count *)net)->count);
	return references;
}

/* Settings had 4 bytes before "tcp: convert elligible sysctls to u8" and its like (5.13). */
/* sysctl_of reads one whose width differs between versions. */
#define sysctl_of(net, field)                                                            \
	({                                                                               \
		__u64 value = 0;                                                         \
		bpf_core_read(&value, bpf_core_field_size((net)->field), &(net)->field); \
		value;                                                                   \
	})

/* sk_ino is there since 6.17. Before, the inode is that around the struct socket. */
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

/* See struct sock_cgroup_data___val. */
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

/* has_listener_hlist: see struct inet_listen_hashbucket___hlist. */
static __always_inline bool has_listener_hlist(void)
{
	return bpf_core_field_exists(
		((struct inet_connection_sock___hlist *)0)->icsk_listen_portaddr_node);
}

static __always_inline __u64 listener_of_node(__u64 node)
{
	if (has_listener_hlist())
		return node - bpf_core_field_offset(struct inet_connection_sock___hlist,
						    icsk_listen_portaddr_node);
	return node - bpf_core_field_offset(struct sock, __sk_common.skc_nulls_node);
}

static __always_inline __u64 first_node(__u64 bucket)
{
	if (has_listener_hlist())
		return (__u64)BPF_CORE_READ((struct inet_listen_hashbucket___hlist *)bucket,
					    head.first);
	return (__u64)BPF_CORE_READ((struct inet_listen_hashbucket *)bucket, nulls_head.first);
}

/* Learned where no namespace has it. */
__u64 hashinfo = 0; /* struct inet_hashinfo of TCP */

static __always_inline void learn_hashinfo(struct sock *sk)
{
	if (!hashinfo)
		hashinfo = (__u64)BPF_CORE_READ(sk, __sk_common.skc_prot, h.hashinfo);
}

/* listener_table is TCP's table of sockets. A namespace has it since "tcp: Introduce optional
 * per-netns ehash" (6.1), and in 5.18 to 6.0 behind a pointer; there, and before, the protocol has
 * it too. */
static __always_inline struct inet_hashinfo *listener_table(struct net *net)
{
	if (bpf_core_field_exists(net->ipv4.tcp_death_row.hashinfo))
		return BPF_CORE_READ(net, ipv4.tcp_death_row.hashinfo);
	return (struct inet_hashinfo *)hashinfo;
}

__u64 socket_operations = 0; /* struct file_operations of sockets, learned */
__u32 own_socket = 0; /* a descriptor of the reader's that is a socket; set by Go */

/* socket_of is the socket behind an open file. Before 5.11 a file is one if its
 * operations are those of a socket of our own. */
static __always_inline struct sock *socket_of(struct file *file)
{
	struct task_struct *reader;
	struct socket *socket;
	struct file *own = NULL;
	__u64 files;

	if (have_sock_from_file) {
		socket = bpf_sock_from_file(file);
		return socket ? socket->sk : NULL;
	}
	if (!socket_operations) {
		reader = (struct task_struct *)bpf_get_current_task();
		files = (__u64)BPF_CORE_READ(reader, files, fdt, fd);
		bpf_probe_read_kernel(&own, 8, (void *)(files + own_socket * 8));
		socket_operations = (__u64)BPF_CORE_READ(own, f_op);
	}
	if (!socket_operations || (__u64)BPF_CORE_READ(file, f_op) != socket_operations)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

#endif
