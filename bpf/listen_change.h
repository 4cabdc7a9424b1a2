/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Listeners that open and close. listen() and close() run in process context, so here `current` is
 * who it seems to be.
 */
#ifndef SYNSPY_LISTEN_CHANGE_H
#define SYNSPY_LISTEN_CHANGE_H

#include "arch.h"
#include "cpu_state.h"
#include "emit.h"
#include "ledger.h"
#include "listener.h"
#include "maps.h"
#include "ports.h"

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

/* is_named reports whether a filter asks for the place where a listener opens: its namespace then
 * takes no part in the race for rows. */
static __always_inline bool is_named(struct sock *sk)
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
		give_cookie(sk);
		begin_opening((__u64)net, is_named(sk));
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

/* listen_state_changed tells of a change of state that makes a listener, or ends one. A child of a
 * listener starts as its copy, so LISTEN to SYN_RECV is no end of listening. */
static __always_inline int listen_state_changed(struct sock *sk, int old, int new)
{
	if (new == TCP_LISTEN)
		return listen_changed(sk, MESSAGE_OPENED);
	if (old == TCP_LISTEN && new != TCP_SYN_RECV)
		return listen_changed(sk, MESSAGE_CLOSED);
	return 0;
}

#endif
