/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Trampolines and kprobes: at the exit of each function of the listen path, what
 * moved on this CPU since the last such exit is the branch that this packet took.
 * Nothing else moves these counters, and the path runs with bottom halves off.
 * Where some function cannot be hooked, and with kprobes, which may miss an exit,
 * entries are hooked too: what they find moved was not this packet's.
 */
#ifndef SYNSPY_LISTEN_PATH_H
#define SYNSPY_LISTEN_PATH_H

#include "accept.h"
#include "account.h"
#include "arrivals.h"
#include "classify.h"
#include "counters.h"
#include "cpu_state.h"
#include "ledger.h"
#include "listener.h"
#include "maps.h"
#include "mark.h"
#include "reqsk_timer.h"

/* arrival_asked_for is a listener's place among the arrivals; NULL: it is of no interest. */
static __always_inline struct arrival *arrival_asked_for(struct cpu_state *cpu, __u64 sk)
{
	return outside_netns(sk) ? NULL : listener_arrival(cpu, sk);
}

/* listener_of is the socket itself, or, where Fast Open hands tcp_check_req the
 * child, the listener of the child's request. */
static __always_inline struct sock *listener_of(struct sock *sk)
{
	if (LOAD(struct sock, sk, __sk_common.skc_state) != TCP_SYN_RECV)
		return sk;
	return BPF_CORE_READ((struct tcp_sock *)sk, fastopen_rsk, __req_common.skc_listener);
}

/* settle gives a movement to the packet that made it. */
static __noinline int settle(struct cpu_state *cpu, struct tally *tally, struct sk_buff *skb,
			     __u64 sk, __u32 ending)
{
	bool comes = skb && cpu->freed_early != (__u64)skb;
	struct verdict *v = &cpu->verdict;
	struct mark *mark;

	if (comes)
		parse(cpu, skb);
	cpu->freed_early = 0;
	if (ending & ENDING_OF_REQUEST)
		sk = (__u64)listener_of((struct sock *)sk);
	/* A SYN is consumed, and comes no more. */
	if (comes && (ending & ENDING_STAGE) == STAGE_ACK) {
		mark = begin_mark(cpu, skb);
		mark->sk = sk;
		mark->settled = true;
	}
	v->sk = sk;
	v->listener_proof = LISTENER_GIVEN;
	judge(skb ? as_number(cpu, skb) : 0, ending);
	if (!cpu->gate || v->outcome == OUTCOME_NONE)
		return unexplained(cpu, tally);
	return account_in(cpu, tally, v);
}

/* mark_checked keeps what tcp_check_req knew of a packet that it made no connection of. */
static __noinline int mark_checked(struct cpu_state *cpu, struct sk_buff *skb, __u64 sk,
				   __u64 request)
{
	struct tcp_request_sock *r = (struct tcp_request_sock *)request;
	struct mark *mark;

	if (parse(cpu, skb))
		return 0;
	mark = begin_mark(cpu, skb);
	mark->sk = (__u64)listener_of((struct sock *)sk);
	mark->isn = request ? BPF_CORE_READ(r, rcv_isn) : 0;
	mark->checked = true;
	return 0;
}

/* leave is a function's exit: the packet counts as arrived, and what moved as its. */
static __always_inline int leave(struct cpu_state *cpu, struct arrival *at, __u64 sk,
				 struct sk_buff *skb, __u32 ending, bool syn, bool v6)
{
	enum stage stage = ending & ENDING_STAGE;
	__u64 net = at->net;
	struct tally *tally;

	if (stage != STAGE_ICMP)
		count_arrival(cpu, at, syn);
	tally = stage == STAGE_SYN ? movement(cpu, net, SIGNS_SYN) :
		stage == STAGE_ACK ? movement_by_ack(cpu, net, ending & ENDING_NO_SOCKET) :
				     movement(cpu, net, SIGNS_ANY);
	if (tally)
		settle(cpu, tally, skb, sk, ending);
	else
		note_routes(cpu, net, v6);
	cpu->denied = 0;
	return tally ? 1 : 0;
}

/* enter is a function's entry: what moved until now moved elsewhere. */
static __always_inline int enter(struct cpu_state *cpu, __u64 sk)
{
	struct arrival *at = arrival_asked_for(cpu, sk);
	struct tally *tally = at ? movement(cpu, at->net, SIGNS_ANY) : NULL;

	return tally ? unexplained(cpu, tally) : 0;
}

static __always_inline bool is_v6(struct sk_buff *skb)
{
	return LOAD(struct sk_buff, skb, protocol) == bpf_htons(ETH_P_IPV6);
}

/* The IPv6 functions hand IPv4 packets to the IPv4 ones, which are hooked as well. */
static __always_inline bool left_to_ipv4(struct sk_buff *skb, bool v6)
{
	return v6 && skb->protocol == bpf_htons(ETH_P_IP);
}

static __always_inline int enter_typed(struct sock *sk)
{
	struct cpu_state *cpu = this_cpu();

	return cpu ? enter(cpu, as_number(cpu, sk)) : 0;
}

static __always_inline int leave_syn(struct cpu_state *cpu, __u64 sk, struct sk_buff *skb, bool v6)
{
	struct arrival *at = arrival_asked_for(cpu, sk);

	if (at)
		leave(cpu, at, sk, skb, STAGE_SYN, true, v6);
	return 0;
}

static __always_inline int leave_typed(struct sock *sk, struct sk_buff *skb, bool v6)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu || left_to_ipv4(skb, v6))
		return 0;
	return leave_syn(cpu, as_number(cpu, sk), skb, v6);
}

/* leave_returned is for a function that returns a new socket, the listener or nothing:
 * tcp_check_req, which has the half-open handshake as well, and the cookie checks, which
 * may have freed the packet. Where tcp_check_req makes a connection none of the counters moves. */
static __always_inline int leave_returned(struct cpu_state *cpu, __u64 sk, struct sk_buff *skb,
					  __u64 request, __u64 returned, bool v6)
{
	struct arrival *at = arrival_asked_for(cpu, sk);
	bool child = returned && returned != sk;
	__u32 ending = STAGE_ACK;

	if (!at)
		return 0;
	if (child) { /* it is in the accept queue */
		forget_dropped_request(cpu); /* another listener took it over */
		if (have_accepts && cpu->gate)
			count_entered(at, sk, as_number(cpu, (void *)returned), request != 0);
		if (request) {
			count_arrival(cpu, at, false);
			return 0;
		}
	}
	if (request)
		v6 = is_v6(skb);
	if (!returned)
		ending |= ENDING_NO_SOCKET;
	if (request)
		ending |= ENDING_OF_REQUEST;
	if (!leave(cpu, at, sk, skb, ending, request && tcp_flags(skb) & TCP_FLAG_SYN, v6) &&
	    request)
		mark_checked(cpu, skb, sk, request);
	cpu->freed_early = 0;
	return 0;
}

/* A kretprobe is not told the arguments again, so the kprobe keeps them. The exit of
 * an inner function takes them away: the outer one finds nothing left. */
static __always_inline int enter_saving(struct sock *sk, __u64 key, __u64 request)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu)
		return 0;
	cpu->call.sk = (__u64)sk;
	cpu->call.skb = key;
	cpu->call.request = request;
	return enter(cpu, (__u64)sk);
}

/* kept is what the entry left; its socket is 0 if that is nothing. */
struct saved {
	struct cpu_state *cpu;
	struct sk_buff *skb;
	__u64 sk;
};

static __always_inline struct saved take_saved(void)
{
	struct saved k = { .cpu = this_cpu() };

	if (!k.cpu || !k.cpu->call.skb)
		return k;
	k.skb = (struct sk_buff *)k.cpu->call.skb;
	k.sk = k.cpu->call.sk;
	k.cpu->call.skb = 0;
	return k;
}

static __always_inline int leave_saved(void)
{
	struct saved k = take_saved();

	if (k.sk)
		leave_syn(k.cpu, k.sk, k.skb, is_v6(k.skb));
	return 0;
}

static __always_inline int leave_saved_returned(__u64 returned, bool v6)
{
	struct saved k = take_saved();
	__u64 request;

	if (!k.sk)
		return 0;
	request = k.cpu->call.request;
	return leave_returned(k.cpu, k.sk, k.skb, request, returned, v6);
}

/* leave_checked is the exit of tcp_check_req, or, without a request, of a cookie check. */
static __always_inline int leave_checked(struct sock *sk, struct sk_buff *skb, __u64 request,
					 __u64 returned, bool v6)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu)
		return 0;
	return leave_returned(cpu, as_number(cpu, sk), skb, request, returned, v6);
}

/* enter_request is for a function that gets the half-open handshake itself: it may
 * be freed by the exit, so what it says is kept now. */
static __always_inline int enter_request(struct sock *request)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu)
		return 0;
	parse_request(&cpu->packet, request);
	return enter_saving(BPF_CORE_READ(request, __sk_common.skc_listener), (__u64)request, 0);
}

static __always_inline int leave_request(void)
{
	struct saved k = take_saved();
	struct arrival *at;

	if (!k.sk)
		return 0;
	at = arrival_asked_for(k.cpu, k.sk);
	if (at)
		leave(k.cpu, at, k.sk, NULL, STAGE_ICMP, false, false);
	return 0;
}

/* conn_request_refused is a security module's answer to a connection request. */
static __always_inline int conn_request_refused(int answer)
{
	struct cpu_state *cpu = this_cpu();

	if (cpu && answer)
		cpu->denied = 1;
	return 0;
}

/* timewait_returned is tcp_timewait_state_process, which lets a SYN pass or not. */
#define TCP_TW_SYN 3
static __always_inline int timewait_returned(struct sk_buff *skb, int answer)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu || answer == TCP_TW_SYN || parse(cpu, skb))
		return 0;
	begin_mark(cpu, skb)->timewait = true;
	return 0;
}

/* A kretprobe is not told the packet again. */
static __always_inline int save_packet(__u64 skb)
{
	struct cpu_state *cpu = this_cpu();

	if (cpu)
		cpu->call.skb = skb;
	return 0;
}

static __always_inline int timewait_returned_saved(int answer)
{
	struct cpu_state *cpu = this_cpu();
	__u64 skb = cpu ? cpu->call.skb : 0;

	if (!skb)
		return 0;
	cpu->call.skb = 0;
	return timewait_returned((struct sk_buff *)skb, answer);
}

#endif
