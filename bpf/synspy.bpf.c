// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs, one line each: a hook, and the handler it calls. Which of them
 * are loaded is decided in Go, by what this kernel lets be hooked.
 */
#include "accept.h"
#include "arch.h"
#include "compat.h"
#include "files.h"
#include "kernel.h"
#include "kfree_skb.h"
#include "listen_path.h"
#include "listen_change.h"
#include "reject.h"
#include "reqsk_timer.h"
#include "reset.h"
#include "snapshot.h"
#include "tracepoint.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Hooks at entry and exit of a function whose first arguments are a listener and a
 * packet, as trampolines and as kprobes. */
#define CONN_REQUEST(function, v6)                                                       \
	SEC("fentry/" #function)                                                         \
	int fentry_##function(__u64 *ctx)                                                \
	{                                                                                \
		return enter_typed((struct sock *)ctx[0]);                               \
	}                                                                                \
	SEC("fexit/" #function)                                                          \
	int fexit_##function(__u64 *ctx)                                                 \
	{                                                                                \
		return leave_typed((struct sock *)ctx[0], (struct sk_buff *)ctx[1], v6); \
	}                                                                                \
	SEC("kprobe/" #function)                                                         \
	int kprobe_##function(struct pt_regs *ctx)                                       \
	{                                                                                \
		return enter_saving((struct sock *)PARM1(ctx), PARM2(ctx), 0);           \
	}                                                                                \
	SEC("kretprobe/" #function)                                                      \
	int kretprobe_##function(struct pt_regs *ctx)                                    \
	{                                                                                \
		return leave_saved();                                                    \
	}

CONN_REQUEST(tcp_v4_conn_request, false)
CONN_REQUEST(tcp_v6_conn_request, true)
CONN_REQUEST(subflow_v4_conn_request, false)
CONN_REQUEST(subflow_v6_conn_request, true)

/* The same for those that return the socket to go on with. */
#define CHECK(function, request, untyped_request, returned, v6)                                \
	SEC("fentry/" #function)                                                               \
	int fentry_##function(__u64 *ctx)                                                      \
	{                                                                                      \
		return enter_typed((struct sock *)ctx[0]);                                     \
	}                                                                                      \
	SEC("fexit/" #function)                                                                \
	int fexit_##function(__u64 *ctx)                                                       \
	{                                                                                      \
		return leave_checked((struct sock *)ctx[0], (struct sk_buff *)ctx[1], request, \
				     returned, v6);                                            \
	}                                                                                      \
	SEC("kprobe/" #function)                                                               \
	int kprobe_##function(struct pt_regs *ctx)                                             \
	{                                                                                      \
		return enter_saving((struct sock *)PARM1(ctx), PARM2(ctx), untyped_request);   \
	}                                                                                      \
	SEC("kretprobe/" #function)                                                            \
	int kretprobe_##function(struct pt_regs *ctx)                                          \
	{                                                                                      \
		return leave_saved_returned(RETURNED(ctx), v6);                                \
	}

CHECK(tcp_check_req, ctx[2], PARM3(ctx), tcp_check_req_returned(ctx), false)
CHECK(cookie_v4_check, 0, 0, ctx[2], false)
CHECK(cookie_v6_check, 0, 0, ctx[2], true)

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

EVENT_PAIR(consume_skb, skb_consumed((struct sk_buff *)ctx[0], consume_skb_location(ctx), twin))
EVENT_PAIR(kfree_skb, skb_dropped((struct sk_buff *)ctx[0], ctx[1], kfree_skb_reason(ctx),
				  kfree_skb_socket(ctx), ctx, twin))

/* (sk, old state, new state): a handshake that succeeded, or, in process context, a listener that
 * comes or goes. */
EVENT_PAIR(inet_sock_set_state, (int)ctx[1] == TCP_SYN_RECV && (int)ctx[2] == TCP_ESTABLISHED ?
					handshake_established((struct sock *)ctx[0], twin) :
				twin ? 0 :
				       listen_state_changed((struct sock *)ctx[0], ctx[1], ctx[2]))

/* Deaths that move no counter, for every backend. */
SEC("tp_btf/tcp_send_reset")
int tp_btf_tcp_send_reset(__u64 *ctx)
{
	return reset_sent((struct sock *)ctx[0], (struct sk_buff *)ctx[1]);
}

SEC("tp_btf/net_dev_queue")
int tp_btf_net_dev_queue(__u64 *ctx)
{
	return answer_sent((struct sk_buff *)ctx[0]);
}

/* Where no reasons are told, the function itself: (socket, packet). */
#define SEND_RESET(function)                                                                  \
	SEC("fentry/" #function)                                                              \
	int fentry_##function(__u64 *ctx)                                                     \
	{                                                                                     \
		return packet_reset((struct sock *)ctx[0], (struct sk_buff *)ctx[1]);         \
	}                                                                                     \
	SEC("kprobe/" #function)                                                              \
	int kprobe_##function(struct pt_regs *ctx)                                            \
	{                                                                                     \
		return packet_reset((struct sock *)PARM1(ctx), (struct sk_buff *)PARM2(ctx)); \
	}

SEND_RESET(tcp_v4_send_reset)
SEND_RESET(tcp_v6_send_reset)

SEC("fexit/tcp_timewait_state_process")
int fexit_tcp_timewait_state_process(__u64 *ctx)
{
	return timewait_returned((struct sk_buff *)ctx[1],
				 tcp_timewait_state_process_returned(ctx));
}

SEC("kprobe/tcp_timewait_state_process")
int kprobe_tcp_timewait_state_process(struct pt_regs *ctx)
{
	return save_packet(PARM2(ctx));
}

SEC("kretprobe/tcp_timewait_state_process")
int kretprobe_tcp_timewait_state_process(struct pt_regs *ctx)
{
	return timewait_returned_saved(RETURNED(ctx));
}

/* (listener, packet, request) */
SEC("fexit/security_inet_conn_request")
int fexit_security_inet_conn_request(__u64 *ctx)
{
	return conn_request_refused(ctx[3]);
}

SEC("kretprobe/security_inet_conn_request")
int kretprobe_security_inet_conn_request(struct pt_regs *ctx)
{
	return conn_request_refused(RETURNED(ctx));
}

/* (listener, request) */
SEC("fentry/inet_csk_reqsk_queue_drop_and_put")
int fentry_inet_csk_reqsk_queue_drop_and_put(__u64 *ctx)
{
	return request_dropped(ctx[0], ctx[1]);
}

SEC("kprobe/inet_csk_reqsk_queue_drop_and_put")
int kprobe_inet_csk_reqsk_queue_drop_and_put(struct pt_regs *ctx)
{
	return request_dropped(PARM1(ctx), PARM2(ctx));
}

/* (listener, request, child): Fast Open comes here by itself. */
SEC("fentry/inet_csk_reqsk_queue_add")
int fentry_inet_csk_reqsk_queue_add(__u64 *ctx)
{
	return fast_opened(ctx[0], ctx[1], ctx[2]);
}

SEC("kprobe/inet_csk_reqsk_queue_add")
int kprobe_inet_csk_reqsk_queue_add(struct pt_regs *ctx)
{
	return fast_opened(PARM1(ctx), PARM2(ctx), PARM3(ctx));
}

/* (listener, flags, error, kern), from 6.10 on (listener, arguments). */
SEC("fexit/inet_csk_accept")
int fexit_inet_csk_accept(__u64 *ctx)
{
	return accepted(ctx[0], inet_csk_accept_returned(ctx));
}

SEC("kprobe/inet_csk_accept")
int kprobe_inet_csk_accept(struct pt_regs *ctx)
{
	return accept_begins(PARM1(ctx));
}

SEC("kretprobe/inet_csk_accept")
int kretprobe_inet_csk_accept(struct pt_regs *ctx)
{
	return accept_ends(RETURNED(ctx));
}

/* (child, socket): comes right after, in accept() too that slept already when we came. */
SEC("fentry/security_sock_graft")
int fentry_security_sock_graft(__u64 *ctx)
{
	return sock_grafted(ctx[0]);
}

SEC("kprobe/security_sock_graft")
int kprobe_security_sock_graft(struct pt_regs *ctx)
{
	return sock_grafted(PARM1(ctx));
}

/* The timer of a half-open handshake: by its function, or by the timers' tracepoints. */
SEC("fentry/reqsk_timer_handler")
int fentry_reqsk_timer_handler(__u64 *ctx)
{
	return timer_begins(ctx[0]);
}

SEC("fexit/reqsk_timer_handler")
int fexit_reqsk_timer_handler(__u64 *ctx)
{
	return timer_ends(ctx[0]);
}

SEC("kprobe/reqsk_timer_handler")
int kprobe_reqsk_timer_handler(struct pt_regs *ctx)
{
	return timer_begins(PARM1(ctx));
}

SEC("kretprobe/reqsk_timer_handler")
int kretprobe_reqsk_timer_handler(struct pt_regs *ctx)
{
	return timer_ends(0);
}

SEC("tp_btf/timer_expire_entry")
int tp_btf_timer_expire_entry(__u64 *ctx)
{
	struct timer_list *timer = (struct timer_list *)ctx[0];

	return (__u64)timer->function == reqsk_timer ? timer_begins(ctx[0]) : 0;
}

SEC("tp_btf/timer_expire_exit")
int tp_btf_timer_expire_exit(__u64 *ctx)
{
	struct cpu_state *cpu = this_cpu();

	return cpu && cpu->timer.key == ctx[0] ? timer_ends(ctx[0]) : 0;
}

/* Timers are stopped with interrupts off, so this has no twin. */
SEC("tp_btf/timer_cancel")
int tp_btf_timer_cancel(__u64 *ctx)
{
	struct timer_list *timer = (struct timer_list *)ctx[0];

	return (__u64)timer->function == reqsk_timer ? timer_cancelled(ctx[0]) : 0;
}

/* Listeners that come and go: every connection changes its state some ten times, and pays
 * for a program there. */
SEC("tp_btf/inet_sock_set_state")
int tp_btf_listen(__u64 *ctx)
{
	return listen_state_changed((struct sock *)ctx[0], ctx[1], ctx[2]);
}

/* The same by their own functions, where trampolines are to be had. It may fail to open. */
SEC("fentry/inet_csk_listen_start")
int fentry_inet_csk_listen_start(__u64 *ctx)
{
	return listen_changed((struct sock *)ctx[0], MESSAGE_OPENED);
}

SEC("fexit/inet_csk_listen_start")
int fexit_inet_csk_listen_start(__u64 *ctx)
{
	int failed = inet_csk_listen_start_returned(ctx);

	return failed ? listen_changed((struct sock *)ctx[0], MESSAGE_CLOSED) : 0;
}

SEC("fentry/inet_csk_listen_stop")
int fentry_inet_csk_listen_stop(__u64 *ctx)
{
	return listen_changed((struct sock *)ctx[0], MESSAGE_CLOSED);
}

/* MPTCP closes what was queued before its listener stops: (socket, its TCP socket). */
SEC("fentry/mptcp_subflow_queue_clean")
int fentry_mptcp_subflow_queue_clean(__u64 *ctx)
{
	return note_closing((struct sock *)ctx[1]);
}

/* (listener, request) */
SEC("tp_btf/tcp_retransmit_synack")
int tp_btf_tcp_retransmit_synack(__u64 *ctx)
{
	return count_synack_retransmit((struct sock *)ctx[0]);
}

SEC("iter/task_file")
int iter_task_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct sock *sk;

	if (!task || !file)
		return 0;
	namespace_found(ctx->meta->seq, task);
	sk = socket_of(file);
	return sk ? socket_found(ctx->meta, task, file, sk) : 0;
}

/* Run by Go with BPF_PROG_TEST_RUN, never attached. */
SEC("raw_tp/synspy_snapshot")
int snapshot(struct bpf_raw_tracepoint_args *ctx)
{
	return answer_request(ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3]);
}

/* For bpf2go: types that cross the maps and are named in no map. */
const struct record *unused_record __attribute__((unused));
const struct captured *unused_captured __attribute__((unused));
const struct listen_change *unused_listen_change __attribute__((unused));
const struct holder *unused_holder __attribute__((unused));
const enum proof unused_cause_proof __attribute__((unused));
const enum stage unused_stage __attribute__((unused));
const enum outcome unused_outcome __attribute__((unused));
const enum counter unused_counter __attribute__((unused));
const enum request unused_request __attribute__((unused));
const enum answer unused_answer __attribute__((unused));
const enum message_kind unused_kind __attribute__((unused));
const enum listener_proof unused_proof __attribute__((unused));
const enum holder_kind unused_holder_kind __attribute__((unused));
const enum netfilter_hook unused_hook __attribute__((unused));
