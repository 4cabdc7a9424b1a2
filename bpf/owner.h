/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who holds the listeners: all of them at the start, from every process's open
 * files, then as they open and close. listen() and close() run in process
 * context, so here, and only here, `current` is who it seems to be.
 */
#ifndef SYNSPY_OWNER_H
#define SYNSPY_OWNER_H

#include "ledger.h"
#include "listener.h"
#include "maps.h"
#include "record.h"

static __always_inline void learn_hashinfo(struct sock *sk)
{
	if (!hashinfo)
		hashinfo = (__u64)BPF_CORE_READ(sk, __sk_common.skc_prot, h.hashinfo);
}

/* plain makes a number of a pointer, like number(), where a softirq may come in between
 * and use the slot. */
static __always_inline struct sock *plain(const struct sock *sk)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, 8, &sk);
	return (struct sock *)address;
}

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

/* namespace_found tells of a process's network namespace: in one without a listener
 * that any process holds, too, the ledger must know where the counters began. */
static __always_inline int namespace_found(struct seq_file *seq, struct task_struct *task)
{
	struct holder holder = {};
	__u64 net = (__u64)BPF_CORE_READ(task, nsproxy, net_ns);

	if (!net || net == last_namespace)
		return 0;
	holder.net = net;
	holder.net_id = net_id(net);
	holder.listener.netns = BPF_CORE_READ((struct net *)net, ns.inum);
	if (!bpf_seq_write(seq, &holder, sizeof(holder))) /* else this file comes again */
		last_namespace = net;
	return 0;
}

#define IPPROTO_MPTCP 262

/* inner is the TCP socket that listens for an MPTCP one: it has no file of its own. */
static __always_inline struct sock *inner(struct sock *sk)
{
	if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP &&
	    bpf_core_field_exists(((struct mptcp_sock *)0)->first))
		return BPF_CORE_READ((struct mptcp_sock *)sk, first);
	return plain(sk);
}

static __always_inline int holder_found(struct seq_file *seq, struct task_struct *task, __u32 fd,
					struct sock *file)
{
	struct holder holder = {};
	struct sock *sk = inner(file);

	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN ||
	    BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	learn_hashinfo(sk);
	if (have_socket_cookie)
		bpf_get_socket_cookie(file); /* gives it one, as ss -e does */
	holder.pid = task->tgid;
	holder.fd = fd;
	holder.start = BPF_CORE_READ(task, group_leader, start_boottime);
	holder.net = (__u64)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	holder.net_id = net_id(holder.net);
	BPF_CORE_READ_INTO(&holder.comm, task, group_leader, comm);
	listener_read(sk, &holder.listener);
	bpf_seq_write(seq, &holder, sizeof(holder));
	return 0;
}

static __always_inline int listen_changed(struct sock *sk, __u8 kind)
{
	__u64 task_id = bpf_get_current_pid_tgid(), address = (__u64)sk;
	struct net *net = BPF_CORE_READ(sk, __sk_common.skc_net.net); /* a plain number */
	struct listen_change *change;
	struct task_struct *task;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	__sync_fetch_and_add(&listen_generation, 1);
	if (filter.netns && filter.netns != BPF_CORE_READ(net, ns.inum))
		return 0;
	if (kind == MESSAGE_OPENED) {
		learn_hashinfo(sk);
		if (have_socket_cookie)
			bpf_get_socket_cookie(sk);
		tally_open((__u64)net);
	} else {
		bpf_map_update_elem(&closing, &task_id, &address, BPF_ANY);
	}
	change = bpf_ringbuf_reserve(&ring, sizeof(*change), 0);
	if (!change) {
		__sync_fetch_and_add(&changes_lost, 1);
		return 0;
	}
	__builtin_memset(change, 0, sizeof(*change));
	change->kind = kind;
	change->pid = bpf_get_current_pid_tgid() >> 32;
	change->time = bpf_ktime_get_ns();
	task = (struct task_struct *)bpf_get_current_task();
	BPF_CORE_READ_INTO(&change->comm, task, group_leader, comm); /* threads have their own */
	listener_read(plain(sk), &change->listener);
	change->listener.proof = LISTENER_GIVEN;
	bpf_ringbuf_submit(change, filter.by_owner ? BPF_RB_FORCE_WAKEUP : wakeup());
	return 0;
}

#endif
