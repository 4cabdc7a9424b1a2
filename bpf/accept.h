/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The accept side: connections enter a listener's accept queue, wait there, and
 * are accepted. Counted per listener, with the time they waited; and when each
 * process last accepted from it. No event leaves for any of it: Go reads the
 * tables when it wants to know.
 *
 * That a connection enters is told by who made it: tcp_check_req and the cookie checks
 * return it. How long it waits is told by itself, once it is accepted.
 *
 * accept() runs in process context, so here `current` is who it seems to be. A
 * softirq may come in between, so there this CPU's state is only looked at, but for
 * cpu->accept_scratch.
 */
#ifndef SYNSPY_ACCEPT_H
#define SYNSPY_ACCEPT_H

#include "arrivals.h"
#include "listener.h"
#include "cpu_state.h"
#include "maps.h"
#include "packet.h"
#include "attempts.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* the sizes here are set by Go, where accepts are asked for */
	__type(key, __u64); /* socket_id(); 0: other listeners */
	__type(value, struct accepting);
} acceptings SEC(".maps");

/* The same by where a listener's id hashes to, without a search: of those that came first. A
 * place is free again once its listener has departed. */
#define ACCEPT_PLACES 256
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* ACCEPT_PLACES, where accepts are asked for */
	__type(key, __u32);
	__type(value, struct accepting);
} accept_places SEC(".maps");

/* Who takes a place makes a row here first: one alone can. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* likewise */
	__type(key, __u32); /* place */
	__type(value, __u64); /* socket_id() */
} accept_owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct acceptor_key);
	__type(value, struct acceptor);
} acceptors SEC(".maps");

/* Tasks that slept in accept() before there was a hook to see its exit, and the listener that
 * they sleep for, put here by Go. Each is taken out by its first accept. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, __u64); /* pid_tgid */
	__type(value, __u64); /* socket_id() */
} sleepers SEC(".maps");

/* The listener that a task is accepting from: a kretprobe is not told. It may sleep
 * there for long. One word a task, which says whose it is: see accept_note(). */
#define ACCEPT_NOTES 4096
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* ACCEPT_NOTES, where accepts are asked for */
	__type(key, __u32); /* the low bits of its number */
	__type(value, __u64);
} accept_notes SEC(".maps");

/* The same where another task has that place. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, __u64); /* pid_tgid */
	__type(value, __u64); /* struct sock */
} accept_calls SEC(".maps");

/* number_of is a trampoline's argument without the type that the verifier gives it. */
static __always_inline __u64 number_of(__u64 argument)
{
	return (__u64)plain((struct sock *)argument);
}

/* accept_number is the same where no other program than that of accept() may come in between
 * and use its place, and the kernel skips a program that interrupts itself. */
static __always_inline __u64 accept_number(struct cpu_state *cpu, __u64 argument)
{
	*(volatile __u64 *)&cpu->accept_scratch = argument;
	return *(volatile __u64 *)&cpu->accept_scratch;
}

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

/* accepting_begin makes a listener's row: at its place, if nobody has that. */
static __noinline struct accepting *accepting_begin(__u64 id, __u32 place)
{
	struct accepting *at = bpf_map_lookup_elem(&accept_places, &place);
	struct accepting *row = bpf_map_lookup_elem(&acceptings, &id);
	static const struct accepting none = {}; /* four calls share the stack's 512 bytes */

	if (at && !at->id && !bpf_map_update_elem(&accept_owners, &place, &id, BPF_NOEXIST)) {
		if (row)
			at->last = row->last; /* what was until now stays there */
		at->id = id;
		return at;
	}
	if (row)
		return row;
	if (!bpf_map_update_elem(&acceptings, &id, &none, BPF_NOEXIST))
		__sync_fetch_and_add(&acceptings_made, 1);
	row = bpf_map_lookup_elem(&acceptings, &id);
	if (row) {
		row->id = id;
		return row;
	}
	id = 0; /* the table is full: "other listeners", made by Go at the start */
	return bpf_map_lookup_elem(&acceptings, &id);
}

/* accepting_of finds a listener's row, or makes it. */
static __always_inline struct accepting *accepting_of(__u64 id)
{
	__u32 place = id * 0x9e3779b97f4a7c15ULL >> 56;
	struct accepting *at = bpf_map_lookup_elem(&accept_places, &place);

	return at && at->id == id ? at : accepting_begin(id, place);
}

/* joined: the child is another way of an MPTCP connection, and enters no queue. */
static __always_inline bool is_mptcp_join(__u64 child)
{
	struct mptcp_subflow_context *flow;

	if (!bpf_core_field_exists(((struct tcp_sock *)0)->is_mptcp) ||
	    !bpf_core_type_exists(struct mptcp_subflow_context) ||
	    !LOAD(struct tcp_sock, child, is_mptcp))
		return false;
	flow = LOAD(struct inet_connection_sock, child, icsk_ulp_data);
	return BPF_CORE_READ_BITFIELD_PROBED(flow, mp_join);
}

/* count_entered counts a child that is in its listener's accept queue, and the marks of both
 * queues. finished: 1 if a half-open handshake has just left the other one for it. */
static __always_inline void count_entered(struct arrival *at, __u64 sk, __u64 child, __u32 finished)
{
	struct arrivals *seen = &at->seen;
	__u32 accept_len, syn_len;

	if (is_mptcp_join(child))
		return;
	seen->entered++;
	if (lost_lately() && came_again(child))
		seen->came_again++;
	accept_len = LOAD(struct sock, sk, sk_ack_backlog);
	if (!accept_len) /* it was accepted at once */
		accept_len = 1;
	syn_len = LOAD(struct inet_connection_sock, sk, icsk_accept_queue.qlen.counter) + finished;
	if (seen->reading != accept_reading) {
		seen->reading = accept_reading;
		seen->accept_max = 0;
		seen->syn_max = 0;
	}
	if (accept_len > seen->accept_max)
		seen->accept_max = accept_len;
	if (syn_len > seen->syn_max)
		seen->syn_max = syn_len;
}

/* fast_opened is the entry of inet_csk_reqsk_queue_add: of Fast Open's children, which no
 * later function returns. That of a listener that has stopped is thrown away there. */
static __always_inline int fast_opened(__u64 sk, __u64 request, __u64 child)
{
	struct cpu_state *cpu;

	if (!LOAD(struct tcp_request_sock, request, tfo_listener) ||
	    LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return 0;
	cpu = this_cpu();
	if (!cpu || !cpu->gate || outside_netns(sk))
		return 0;
	sk = as_number(cpu, (void *)sk);
	count_entered(listener_arrival(cpu, sk), sk, as_number(cpu, (void *)child), 0);
	return 0;
}

/* note_acceptor remembers when this process accepted from the listener: when it first did in
 * each of the last spans of some milliseconds in which it did. A record is written a little
 * after its packet died, and then the last accept may be later than that. */
static __noinline int note_acceptor(__u64 id, __u32 pid, __u64 now)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct acceptor_key key = { .id = id, .pid = pid };
	struct task_struct *leader = LOAD(struct task_struct, task, group_leader);
	__u64 start = LOAD(struct task_struct, leader, start_boottime);
	__u32 span = (now >> ACCEPT_SPAN_SHIFT) & (ACCEPT_SPANS - 1);
	struct acceptor *acceptor = bpf_map_lookup_elem(&acceptors, &key);
	struct acceptor fresh = {};

	if (acceptor && acceptor->start == start) {
		if (acceptor->spans[span] >> ACCEPT_SPAN_SHIFT != now >> ACCEPT_SPAN_SHIFT)
			acceptor->spans[span] = now;
		return 0;
	}
	fresh.start = start; /* another process had the number, or none yet */
	fresh.spans[span] = now;
	bpf_map_update_elem(&acceptors, &key, &fresh, BPF_ANY);
	return 0;
}

/* waited_until tells how long a connection waited. Its socket keeps when the handshake ended
 * (tcp_init_buffer_space), until the first recv() of who accepts it; 0: it ends just now. */
static __always_inline __u64 waited_until(__u64 now, __u64 child)
{
	__u64 since = LOAD(struct tcp_sock, child, rcvq_space.time) * 1000;

	return since && since < now ? now - since : 0;
}

/* count_accepted counts a connection that was accepted. */
static __always_inline int count_accepted(__u64 id, __u64 child)
{
	struct accepting *row = accepting_of(id);
	__u64 now = bpf_ktime_get_ns(), last, waited, noted;
	__u32 bucket, pid = bpf_get_current_pid_tgid() >> 32;

	noted = now >> ACCEPT_SPAN_SHIFT << 32 | pid;
	if (!row || row->noted != noted || row->id != id) /* a row may be shared */
		note_acceptor(id, pid, now);
	if (!row)
		return 0;
	row->noted = noted; /* within this span again: it is the same process's */
	__sync_fetch_and_add(&row->accepts, 1);
	last = row->last;
	if (last && now - last < 1ULL << 63 && now - last > row->gap)
		row->gap = now - last;
	row->last = now;
	waited = waited_until(now, child);
	__sync_fetch_and_add(&row->waited, waited);
	bucket = wait_bucket(waited);
	if (bucket < NUM_WAITS)
		__sync_fetch_and_add(&row->waits[bucket], 1);
	return 0;
}

/* accepted is an accept that returned child; 0: it returned none, as EAGAIN does. */
static __always_inline int accepted(__u64 sk, __u64 child)
{
	struct cpu_state *cpu = this_cpu();
	__u64 task;

	if (sleepers_put != sleepers_taken) { /* this call is seen: no sleeper's first one */
		task = bpf_get_current_pid_tgid();
		if (!bpf_map_delete_elem(&sleepers, &task))
			__sync_fetch_and_add(&sleepers_taken, 1);
	}
	if (!cpu || !cpu->gate || !child || !sk || outside_netns(sk))
		return 0;
	return count_accepted(socket_id(accept_number(cpu, sk)), child);
}

/* sock_grafted is a connection that a task accepts, whose call began before there was a hook to
 * see its exit. */
static __always_inline int sock_grafted(__u64 child)
{
	struct cpu_state *cpu;
	__u64 task, *listener, id;

	if (sleepers_put == sleepers_taken)
		return 0;
	if (LOAD(struct sock, child, sk_protocol) != IPPROTO_TCP)
		return 0;
	task = bpf_get_current_pid_tgid();
	listener = bpf_map_lookup_elem(&sleepers, &task);
	cpu = this_cpu();
	if (!listener || !cpu)
		return 0;
	id = *listener;
	if (!bpf_map_delete_elem(&sleepers, &task))
		__sync_fetch_and_add(&sleepers_taken, 1);
	return cpu->gate ? count_accepted(id, child) : 0;
}

/* accept_note is a socket's address and the high bits of a task's number in one word: the kernel's
 * addresses have 57 bits and a sign, sockets begin at cache lines, and numbers end below 2^22. */
#define NOTE_TASK_BITS 10
#define NOTE_TASK ((1 << NOTE_TASK_BITS) - 1)
#define NOTE_SHIFT 7
#define SOCK_ALIGNMENT 64
static __always_inline __u64 accept_note(__u64 sk, __u32 tid)
{
	return sk << NOTE_SHIFT | (tid / ACCEPT_NOTES & NOTE_TASK);
}

static __always_inline bool noted_by(__u64 note, __u32 tid)
{
	return (note & NOTE_TASK) == (tid / ACCEPT_NOTES & NOTE_TASK);
}

static __always_inline __u64 noted_socket(__u64 note)
{
	return (__s64)note >> NOTE_SHIFT & ~(__u64)(SOCK_ALIGNMENT - 1);
}

static __always_inline int accept_begins(__u64 sk)
{
	__u64 task = bpf_get_current_pid_tgid(), *note;
	__u32 tid = task, place = tid & (ACCEPT_NOTES - 1);

	note = bpf_map_lookup_elem(&accept_notes, &place);
	if (note && (!*note || noted_by(*note, tid)) && !(sk & (SOCK_ALIGNMENT - 1)))
		*note = accept_note(sk, tid);
	else
		bpf_map_update_elem(&accept_calls, &task, &sk, BPF_ANY);
	return 0;
}

static __always_inline int accept_ends(__u64 child)
{
	__u64 task = bpf_get_current_pid_tgid(), sk = 0, *note, *call;
	__u32 tid = task, place = tid & (ACCEPT_NOTES - 1);

	note = bpf_map_lookup_elem(&accept_notes, &place);
	if (note && *note && noted_by(*note, tid)) {
		sk = noted_socket(*note);
		*note = 0;
	} else {
		call = bpf_map_lookup_elem(&accept_calls, &task);
		if (call) {
			sk = *call;
			bpf_map_delete_elem(&accept_calls, &task);
		}
	}
	return accepted(sk, child);
}

/* count_synack_retransmit counts a SYN-ACK that is sent again: nobody acknowledged it yet, or its
 * SYN came again. */
static __always_inline int count_synack_retransmit(struct sock *sk)
{
	__u64 listener = number_of((__u64)sk);
	struct accepting *row;

	if (LOAD(struct sock, listener, __sk_common.skc_state) != TCP_LISTEN /* Fast Open's child */
	    || outside_netns(listener))
		return 0;
	row = accepting_of(socket_id(listener));
	if (row)
		__sync_fetch_and_add(&row->answered_again, 1);
	return 0;
}

/* count_syn_retransmit counts a SYN that was sent again into its own half-open handshake: its
 * client has not seen the SYN-ACK. */
static __noinline int count_syn_retransmit(struct cpu_state *cpu, __u64 sk)
{
	struct accepting *row;

	if (!have_accepts || !cpu->gate || !sk)
		return 0;
	row = accepting_of(socket_id(sk));
	if (row)
		__sync_fetch_and_add(&row->asked_again, 1);
	return 0;
}

#endif
