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
#include "cpu_state.h"
#include "maps.h"
#include "record.h"
#include "steered.h"

static __always_inline void learn_hashinfo(struct sock *sk)
{
	if (!hashinfo)
		hashinfo = (__u64)BPF_CORE_READ(sk, __sk_common.skc_prot, h.hashinfo);
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

/* Where anything listens, or did: what is connected there was accepted. */
struct listening_key {
	__u64 net_id;
	__u32 port;
	__u32 pad;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* both set by Go, where accepts are asked for */
	__type(key, struct listening_key);
	__type(value, __u8);
} listening SEC(".maps");

/* Who was told of as having accepted a connection there, and in which walk. */
struct child_key {
	__u64 net_id;
	__u32 pid;
	__u32 port;
	__u8 addr[16];
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct child_key);
	__type(value, __u64);
} children SEC(".maps");

static __always_inline void note_listening(__u64 net, __u32 port)
{
	struct listening_key key = { .net_id = net_id(net), .port = port };
	__u8 yes = 1;

	if (have_accepts)
		bpf_map_update_elem(&listening, &key, &yes, BPF_ANY);
}

static __always_inline void holder_of(struct holder *h, struct task_struct *task, struct sock *sk)
{
	h->pid = task->tgid;
	h->start = BPF_CORE_READ(task, group_leader, start_boottime);
	h->net = (__u64)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	h->net_id = net_id(h->net);
	BPF_CORE_READ_INTO(&h->comm, task, group_leader, comm);
}

static __always_inline int listener_found(struct seq_file *seq, struct task_struct *task,
					  struct sock *file, struct sock *sk)
{
	struct holder holder = { .kind = HOLDER_LISTENER };

	learn_hashinfo(sk);
	if (!have_path)
		learn_queued((__u64)sk);
	if (have_socket_cookie)
		bpf_get_socket_cookie(file); /* gives it one, as ss -e does */
	holder_of(&holder, task, sk);
	listener_read(sk, &holder.listener);
	note_listening(holder.net, holder.listener.port);
	bpf_seq_write(seq, &holder, sizeof(holder));
	return 0;
}

/* child_found tells of a process that has a connection open which it accepted itself.
 * Accepted: at a port that listens, and not bound to it by bind(), as only an outgoing
 * one could be: connect() takes no port that listens, and sk_clone_lock() takes the lock off
 * what a listener's children inherit. Itself: accept() notes the credentials of its caller
 * with the file. Each process has an object of its own for them, a forked one too
 * (copy_creds()), and makes another with setuid() and exec(): what was accepted before
 * those is not told of. Once for each process and address in a walk. */
static __noinline int child_found(struct bpf_iter_meta *meta, struct task_struct *task,
				  struct sock *sk)
{
	struct listening_key at = { .net_id = net_id(
					    (__u64)BPF_CORE_READ(sk, __sk_common.skc_net.net)),
				    .port = BPF_CORE_READ(sk, __sk_common.skc_num) };
	struct child_key key = { .net_id = at.net_id, .port = at.port, .pid = task->tgid };
	struct holder holder = { .kind = HOLDER_CHILD };
	__u64 walk = meta->session_id, *told;

	if (!bpf_map_lookup_elem(&listening, &at) ||
	    BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK)
		return 0;
	holder.listener.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (holder.listener.family == AF_INET6)
		BPF_CORE_READ_INTO(&key.addr, sk, __sk_common.skc_v6_rcv_saddr);
	else
		map_v4(key.addr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	told = bpf_map_lookup_elem(&children, &key);
	if (told && *told == walk)
		return 0;
	holder_of(&holder, task, sk);
	holder.listener.port = at.port;
	holder.listener.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	__builtin_memcpy(holder.listener.addr, key.addr, sizeof(key.addr));
	if (!bpf_seq_write(meta->seq, &holder, sizeof(holder))) /* else this file comes again */
		bpf_map_update_elem(&children, &key, &walk, BPF_ANY);
	return 0;
}

static __always_inline int socket_found(struct bpf_iter_meta *meta, struct task_struct *task,
					struct file *file, struct sock *sock)
{
	struct sock *sk = inner(sock);
	__u8 state;

	if (!sk || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == TCP_LISTEN)
		return listener_found(meta->seq, task, sock, sk);
	if (have_accepts && state != TCP_CLOSE &&
	    BPF_CORE_READ(file, f_cred) == BPF_CORE_READ(task, cred))
		return child_found(meta, task, sk);
	return 0;
}

/* note_backlog reads what listen() was called with, from its caller's registers: the kernel
 * keeps only the smaller of that and somaxconn. A socket that listens already, or is told to
 * by io_uring, has called nothing of the kind here. */
static __always_inline void note_backlog(struct listen_change *change)
{
	struct pt_regs *regs;
	__u64 backlog = 0;

	if (!have_task_pt_regs)
		return;
	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	if (SYSCALL(regs) != NR_LISTEN)
		return;
	if (bpf_probe_read_kernel(&backlog, sizeof(backlog), &PARM2(regs)))
		return;
	change->backlog = backlog;
	change->asked = 1;
}

/* named tells whether a filter asks for the place where a listener opens: its namespace then
 * takes no part in the race for rows. */
static __always_inline bool named(struct sock *sk)
{
	__u32 port = sk->__sk_common.skc_num;

	for (__u32 i = 0; i < MAX_PORT_RANGES && i < filter.ports; i++)
		if (port >= filter.port[i].low && port <= filter.port[i].high)
			return true;
	return filter.netns;
}

/* note_closing: what this task resets next was queued there. */
static __always_inline int note_closing(struct sock *sk)
{
	__u64 task_id = bpf_get_current_pid_tgid(), address = (__u64)sk;

	bpf_map_update_elem(&closing, &task_id, &address, BPF_ANY);
	return 0;
}

static __always_inline int listen_changed(struct sock *sk, __u8 kind)
{
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
		begin_opening((__u64)net, named(sk));
		note_listening((__u64)net, BPF_CORE_READ(sk, __sk_common.skc_num));
	} else {
		note_closing(sk);
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
	if (kind == MESSAGE_OPENED)
		note_backlog(change);
	listener_read(plain(sk), &change->listener);
	change->listener.proof = LISTENER_GIVEN;
	bpf_ringbuf_submit(change, filter.by_owner ? BPF_RB_FORCE_WAKEUP : wakeup());
	return 0;
}

/* listens tells of a change of state that makes a listener, or ends one. A child of a listener
 * starts as its copy, so LISTEN to SYN_RECV is no end of listening. */
static __always_inline int listens(struct sock *sk, int old, int new)
{
	if (new == TCP_LISTEN)
		return listen_changed(sk, MESSAGE_OPENED);
	if (old == TCP_LISTEN && new != TCP_SYN_RECV)
		return listen_changed(sk, MESSAGE_CLOSED);
	return 0;
}

#endif
