// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs, one line each: a hook, and the handler it calls. Which of them
 * are loaded is decided in Go, by what this kernel lets be hooked.
 */
#include "kernel.h"
#include "arrival.h"
#include "freed.h"
#include "owner.h"
#include "path.h"
#include "snapshot.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Hooks at entry and exit of a function whose first arguments are a listener and a
 * packet, as trampolines and as kprobes. */
#define PACKET_PAIR(function, stage, v6)                                                        \
	SEC("fentry/" #function)                                                                \
	int fentry_##function(__u64 *ctx)                                                       \
	{                                                                                       \
		return enter_typed((struct sock *)ctx[0]);                                      \
	}                                                                                       \
	SEC("fexit/" #function)                                                                 \
	int fexit_##function(__u64 *ctx)                                                        \
	{                                                                                       \
		return leave_typed((struct sock *)ctx[0], (struct sk_buff *)ctx[1], stage, v6); \
	}                                                                                       \
	SEC("kprobe/" #function)                                                                \
	int kprobe_##function(struct pt_regs *ctx)                                              \
	{                                                                                       \
		return enter_kept((struct sock *)PARM1(ctx), PARM2(ctx));                       \
	}                                                                                       \
	SEC("kretprobe/" #function)                                                             \
	int kretprobe_##function(struct pt_regs *ctx)                                           \
	{                                                                                       \
		return leave_kept(stage);                                                       \
	}

PACKET_PAIR(tcp_v4_conn_request, STAGE_SYN, false)
PACKET_PAIR(tcp_v6_conn_request, STAGE_SYN, true)
PACKET_PAIR(subflow_v4_conn_request, STAGE_SYN, false)
PACKET_PAIR(subflow_v6_conn_request, STAGE_SYN, true)
PACKET_PAIR(tcp_check_req, STAGE_ACK, false)
PACKET_PAIR(cookie_v4_check, STAGE_ACK, false)
PACKET_PAIR(cookie_v6_check, STAGE_ACK, false)

/* An ICMP error that removes a half-open handshake: (request, sequence, abort). */
SEC("fentry/tcp_req_err")
int fentry_tcp_req_err(__u64 *ctx)
{
	return enter_request((struct sock *)ctx[0]);
}

SEC("fexit/tcp_req_err")
int fexit_tcp_req_err(__u64 *ctx)
{
	return leave_request();
}

SEC("kprobe/tcp_req_err")
int kprobe_tcp_req_err(struct pt_regs *ctx)
{
	return enter_request((struct sock *)PARM1(ctx));
}

SEC("kretprobe/tcp_req_err")
int kretprobe_tcp_req_err(struct pt_regs *ctx)
{
	return leave_request();
}

/* With tracepoints alone, each event has two programs, see seen_before(). */
#define EVENT_PAIR(tracepoint, call)               \
	SEC("tp_btf/" #tracepoint)                 \
	int tp_btf_##tracepoint(__u64 *ctx)        \
	{                                          \
		const bool twin = false;           \
		return call;                       \
	}                                          \
	SEC("tp_btf/" #tracepoint)                 \
	int tp_btf_##tracepoint##_twin(__u64 *ctx) \
	{                                          \
		const bool twin = true;            \
		return call;                       \
	}

EVENT_PAIR(consume_skb,
	   consumed((struct sk_buff *)ctx[0], have_consume_location ? ctx[1] : 0, twin))
EVENT_PAIR(kfree_skb, dropped((struct sk_buff *)ctx[0], ctx[1],
			      have_rx_sk ? (struct sock *)ctx[3] : NULL, twin))

/* (sk, old state, new state): a handshake that succeeded. */
EVENT_PAIR(inet_sock_set_state, (int)ctx[1] == TCP_SYN_RECV && (int)ctx[2] == TCP_ESTABLISHED ?
					established((struct sock *)ctx[0], twin) :
					0)

/* The same tracepoint for every backend: listeners that come and go. A child of
 * a listener starts as its copy, so LISTEN to SYN_RECV is no end of listening. */
SEC("tp_btf/inet_sock_set_state")
int tp_btf_listen(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	int old = ctx[1], new = ctx[2];

	if (new == TCP_LISTEN)
		return listen_changed(sk, MESSAGE_OPENED);
	if (old == TCP_LISTEN && new != TCP_SYN_RECV)
		return listen_changed(sk, MESSAGE_CLOSED);
	return 0;
}

SEC("iter/task_file")
int iter_task_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	namespace_found(ctx->meta->seq, task);
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	return sk ? holder_found(ctx->meta->seq, task, ctx->fd, sk) : 0;
}

/* Run by Go with BPF_PROG_TEST_RUN, never attached. */
SEC("raw_tp/synspy_snapshot")
int snapshot(struct bpf_raw_tracepoint_args *ctx)
{
	return answer_request(ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3]);
}

/* For bpf2go: types that cross the maps and are named in no map. */
const struct record *unused_record __attribute__((unused));
const struct listen_change *unused_listen_change __attribute__((unused));
const struct holder *unused_holder __attribute__((unused));
const enum outcome unused_outcome __attribute__((unused));
const enum counter unused_counter __attribute__((unused));
const enum request unused_request __attribute__((unused));
const enum answer unused_answer __attribute__((unused));
const enum message_kind unused_kind __attribute__((unused));
const enum listener_proof unused_proof __attribute__((unused));
