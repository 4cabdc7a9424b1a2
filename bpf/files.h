/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who holds the listeners, and who accepted from them: from every process's open files. The walk
 * runs in process context, so here `current` is who it seems to be.
 */
#ifndef SYNSPY_FILES_H
#define SYNSPY_FILES_H

#include "config.h"
#include "ledger.h"
#include "listener.h"
#include "listen_change.h"
#include "maps.h"
#include "ports.h"
#include "steered.h"

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

/* tcp_socket_of is the TCP socket that listens for an MPTCP one: it has no file of its own. */
static __always_inline struct sock *tcp_socket_of(struct sock *sk)
{
	if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP &&
	    bpf_core_field_exists(((struct mptcp_sock *)0)->first))
		return BPF_CORE_READ((struct mptcp_sock *)sk, first);
	return plain(sk);
}

/* Who was told of as having accepted a connection there, and in which walk. */
struct child_key {
	__u64 net_id;
	__u32 pid;
	__u32 port;
	__u8 addr[16];
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* likewise */
	__type(key, struct child_key);
	__type(value, __u64);
} children SEC(".maps");

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
	if (!have_listen_path)
		learn_steered_queue((__u64)sk);
	give_cookie(file);
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
	struct sock *sk = tcp_socket_of(sock);
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

#endif
