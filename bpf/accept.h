/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The accept side: connections enter a listener's accept queue, wait there, and
 * are accepted. Counted per listener, with the time they waited; and when each
 * process last accepted from it. No event leaves for any of it: Go reads the
 * tables when it wants to know.
 *
 * accept() runs in process context, so here `current` is who it seems to be. A
 * softirq may come in between, so there this CPU's slot is only looked at.
 */
#ifndef SYNSPY_ACCEPT_H
#define SYNSPY_ACCEPT_H

#include "listener.h"
#include "maps.h"
#include "packet.h"
#include "record.h"

/* A connection that waits in an accept queue. */
struct waiting {
	__u64 listener; /* socket_id() */
	__u64 since; /* CLOCK_MONOTONIC, ns */
};

/* By its socket's address. One that its listener's end took along stays until another
 * takes its address, or its place. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* the sizes here are set by Go, where accepts are asked for */
	__type(key, __u64);
	__type(value, struct waiting);
} queued SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64); /* socket_id(); 0: other listeners */
	__type(value, struct accepting);
} acceptings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct acceptor_key);
	__type(value, struct acceptor);
} acceptors SEC(".maps");

/* The listener that a task is accepting from: a kretprobe is not told. It may sleep
 * there for long. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, __u64); /* pid_tgid */
	__type(value, __u64); /* struct sock */
} accept_calls SEC(".maps");

/* wait_bucket sorts a time by its binary logarithm in microseconds. A global function:
 * the verifier walks its branches once. */
__noinline __u32 wait_bucket(__u64 ns)
{
	__u64 us = ns / 1000;
	__u32 bucket = us != 0;

	if (us >> 32)
		return NUM_WAITS - 1;
	if (us >> 16) {
		us >>= 16;
		bucket += 16;
	}
	if (us >> 8) {
		us >>= 8;
		bucket += 8;
	}
	if (us >> 4) {
		us >>= 4;
		bucket += 4;
	}
	if (us >> 2) {
		us >>= 2;
		bucket += 2;
	}
	if (us >> 1)
		bucket++;
	return bucket < NUM_WAITS ? bucket : NUM_WAITS - 1;
}

/* accepting_of finds a listener's row, or makes it. */
static __noinline struct accepting *accepting_of(__u64 id)
{
	struct accepting *row = bpf_map_lookup_elem(&acceptings, &id);
	struct accepting fresh = {};

	if (row)
		return row;
	if (!bpf_map_update_elem(&acceptings, &id, &fresh, BPF_NOEXIST))
		__sync_fetch_and_add(&acceptings_made, 1);
	row = bpf_map_lookup_elem(&acceptings, &id);
	if (row)
		return row;
	id = 0; /* the table is full: "other listeners", made by Go at the start */
	return bpf_map_lookup_elem(&acceptings, &id);
}

/* has_entered counts a connection that enters the accept queue, and the marks of both
 * queues as they are then: ahead is how many of the accept queue are not counted in it
 * yet. Two CPUs may lose each other's mark, never each other's count. */
static __always_inline void has_entered(__u64 id, __u64 sk, __u64 child, __u32 ahead)
{
	struct accepting *row = accepting_of(id);
	__u32 accept_len, syn_len;

	if (!row)
		return;
	__sync_fetch_and_add(&row->arrivals, 1);
	if (came_again(child))
		__sync_fetch_and_add(&row->came_again, 1);
	accept_len = LOAD(struct sock, sk, sk_ack_backlog) + ahead;
	syn_len = LOAD(struct inet_connection_sock, sk, icsk_accept_queue.qlen.counter);
	if (row->reading != accept_reading) {
		row->reading = accept_reading;
		row->accept_max = 0;
		row->syn_max = 0;
	}
	if (accept_len > row->accept_max)
		row->accept_max = accept_len;
	if (syn_len > row->syn_max)
		row->syn_max = syn_len;
}

/* number_of is a trampoline's argument without the type that the verifier gives it. */
static __always_inline __u64 number_of(__u64 argument)
{
	return (__u64)plain((struct sock *)argument);
}

/* enqueue is the entry of a function that puts a child into the accept queue: it is no
 * process's yet. The child of a listener that has stopped is thrown away there. The outer
 * one of two such functions may call the inner one, or have it inlined: what it was about
 * on this CPU last, and is not accepted yet, comes for the second time. Bottom halves are
 * off, so the slot is ours. */
static __noinline int enqueue(__u64 sk, __u64 child, bool outer)
{
	struct waiting w, *known;
	struct slot *slot = this_slot();
	struct net *net;

	if (!slot || LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return 0;
	net = LOAD(struct sock, sk, __sk_common.skc_net.net);
	if (filter.netns && filter.netns != LOAD(struct net, net, ns.inum))
		return 0;
	w.listener = socket_id(sk);
	w.since = bpf_ktime_get_ns();
	if (outer) {
		slot->entering = child;
	} else if (slot->entering == child) {
		known = bpf_map_lookup_elem(&queued, &child);
		if (known && known->listener == w.listener)
			return 0;
	}
	bpf_map_update_elem(&queued, &child, &w, BPF_ANY);
	if (slot->gate)
		has_entered(w.listener, sk, child, 1);
	return 0;
}

/* note_acceptor remembers when this process accepted from the listener. A time is kept
 * for each of the last spans of some milliseconds: a record is written a little
 * after its packet died, and then the last accept may be later than that. */
static __noinline int note_acceptor(__u64 id, __u64 now)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct acceptor_key key = { .id = id, .pid = bpf_get_current_pid_tgid() >> 32 };
	__u64 start = BPF_CORE_READ(task, group_leader, start_boottime);
	__u32 span = (now >> ACCEPT_SPAN_SHIFT) & (ACCEPT_SPANS - 1);
	struct acceptor *acceptor = bpf_map_lookup_elem(&acceptors, &key);
	struct acceptor fresh = {};

	if (acceptor && acceptor->start == start) {
		acceptor->spans[span] = now;
		return 0;
	}
	fresh.start = start; /* another process had the number, or none yet */
	fresh.spans[span] = now;
	bpf_map_update_elem(&acceptors, &key, &fresh, BPF_ANY);
	return 0;
}

/* has_left counts a connection that was accepted. since: when it came; 0: not known. */
static __noinline int has_left(__u64 id, __u64 since)
{
	struct accepting *row = accepting_of(id);
	__u64 now = bpf_ktime_get_ns(), last;
	__u32 bucket;

	note_acceptor(id, now);
	if (!row)
		return 0;
	__sync_fetch_and_add(&row->accepts, 1);
	last = row->last;
	if (last && now - last < 1ULL << 63 && now - last > row->gap)
		row->gap = now - last;
	row->last = now;
	if (!since)
		return 0;
	__sync_fetch_and_add(&row->waited, now - since);
	bucket = wait_bucket(now - since);
	if (bucket < NUM_WAITS)
		__sync_fetch_and_add(&row->waits[bucket], 1);
	return 0;
}

/* dequeue is an accept that returned child; 0: it returned none, as EAGAIN does. Of one
 * that entered the queue before we were there the listener is sk, and the time unknown. */
static __noinline int dequeue(__u64 sk, __u64 child)
{
	struct slot *slot = this_slot();
	struct waiting *w, was = {};
	struct net *net;

	if (!slot || !child)
		return 0;
	w = bpf_map_lookup_elem(&queued, &child);
	if (w) {
		was = *w;
		bpf_map_delete_elem(&queued, &child);
	} else {
		if (!sk)
			return 0;
		net = LOAD(struct sock, sk, __sk_common.skc_net.net);
		if (filter.netns && filter.netns != LOAD(struct net, net, ns.inum))
			return 0;
		was.listener = socket_id(sk);
	}
	return slot->gate ? has_left(was.listener, was.since) : 0;
}

static __always_inline int accept_begins(__u64 sk)
{
	__u64 task = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&accept_calls, &task, &sk, BPF_ANY);
	return 0;
}

static __always_inline int accept_ends(__u64 child)
{
	__u64 task = bpf_get_current_pid_tgid(), sk = 0;
	__u64 *call = bpf_map_lookup_elem(&accept_calls, &task);

	if (call) {
		sk = *call;
		bpf_map_delete_elem(&accept_calls, &task);
	}
	return dequeue(sk, child);
}

/* answered_again is a SYN-ACK that is sent again: nobody acknowledged it yet, or its SYN
 * came again. */
static __always_inline int answered_again(struct sock *sk)
{
	__u64 listener = number_of((__u64)sk);
	struct net *net = LOAD(struct sock, listener, __sk_common.skc_net.net);
	struct accepting *row;

	if (LOAD(struct sock, listener, __sk_common.skc_state) !=
	    TCP_LISTEN) /* Fast Open's child */
		return 0;
	if (filter.netns && filter.netns != LOAD(struct net, net, ns.inum))
		return 0;
	row = accepting_of(socket_id(listener));
	if (row)
		__sync_fetch_and_add(&row->answered_again, 1);
	return 0;
}

/* asked_again is a SYN that was sent again into its own half-open handshake: its client has
 * not seen the SYN-ACK. */
static __noinline int asked_again(struct slot *slot)
{
	struct accepting *row;

	if (!have_accepts || !slot->gate || !slot->given)
		return 0;
	row = accepting_of(socket_id(slot->given));
	if (row)
		__sync_fetch_and_add(&row->asked_again, 1);
	return 0;
}

#endif
