/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Deaths that move no counter of the listen path: SYNs freed before any listener, and packets of a
 * half-open handshake that did not fit it. All are seen at kfree_skb, whatever hooks the listen
 * path; earlier hooks leave a mark of what they learnt.
 */
#ifndef SYNSPY_KFREE_SKB_H
#define SYNSPY_KFREE_SKB_H

#include "account.h"
#include "code.h"
#include "cpu_state.h"
#include "ip.h"
#include "lookup.h"
#include "mark.h"
#include "hook_callers.h"
#include "packet.h"
#include "reject.h"
#include "reqsk_timer.h"
#include "skb.h"
#include "steered.h"
#include "tracepoint.h"

/* outcomes_of_free says what a packet died of by the reason it is freed for, or by the function that
 * frees it. */
static __always_inline struct reason_outcomes outcomes_of_free(__u32 reason, __u64 location)
{
	const struct reason_outcomes unsaid = { OUTCOME_NONE, OUTCOME_ACK_BAD_QUIET };
	const struct reason_outcomes other = { OUTCOME_INGRESS_OTHER, OUTCOME_ACK_OTHER_FREED };
	struct reason_outcomes outcomes;

	if (have_reason) {
		if (reason >= MAX_REASONS)
			return other;
		asm volatile(
			""
			: "+r"(reason)); /* the mask stays, for verifiers that forget what was spilled (6.1) */
		outcomes = reason_outcomes[reason & (MAX_REASONS - 1)];
		if (outcomes.syn != unsaid.syn || outcomes.ack != unsaid.ack)
			return outcomes;
	}
#pragma unroll
	for (int i = 0; i < MAX_PLACES; i++) {
		if (!places[i].size)
			break;
		if (location - places[i].start < places[i].size)
			return places[i].outcomes;
	}
	return have_reason || in_code(kfree_ranges, 4, location) ? unsaid : other;
}

/* ack_outcome is what killed a packet of a half-open handshake. known: it was seen to be
 * refused as such; else the kernel's reason must say so. */
static __always_inline __u8 ack_outcome(__u8 outcome, bool reset, bool known)
{
	if (outcome == OUTCOME_ACK_OTHER_FREED && (reset || known))
		outcome = OUTCOME_ACK_BAD_QUIET;
	if (outcome != OUTCOME_ACK_BAD_QUIET)
		return outcome;
	if (reset && !known && !have_dropped_requests) /* its own listener may have closed */
		return OUTCOME_ACK_OTHER_ANSWERED;
	return reset ? OUTCOME_ACK_BAD_ANSWERED : OUTCOME_ACK_BAD_QUIET;
}

#define SOCK_RAW 3
#define RTN_UNICAST 1
#define RTF_ANYCAST 0x00100000
#define RTF_LOCAL 0x80000000

/* hook_of tells how far a packet came: without a route it was not past prerouting, and
 * what kind of route it has says whether it was to stay here. */
static __always_inline __u32 hook_of(struct cpu_state *cpu, __u64 refdst)
{
	__u64 route = refdst & SKB_DST_PTRMASK;

	if (!route)
		return HOOK_PREROUTING;
	if (cpu->packet.family == AF_INET)
		return BPF_CORE_READ((struct rtable *)route, rt_type) == RTN_UNICAST ?
			       HOOK_FORWARD :
			       HOOK_INPUT;
	if (cpu->packet.server[0] == 0xff ||
	    BPF_CORE_READ((struct rt6_info *)route, rt6i_flags) & (RTF_LOCAL | RTF_ANYCAST))
		return HOOK_INPUT;
	return HOOK_FORWARD;
}

/* A stack takes 1 to 2 us, so that a flood pays under 1 % of a CPU for them. */
#define WALK_SPAN 20000000 /* ns */
#define WALKS 100

/* note_callers finds who called netfilter, which says at which hook the packet was. */
static __always_inline void note_callers(struct cpu_state *cpu, void *ctx)
{
	struct stack_walks *walks = &cpu->stack_walks;
	__u64 now = bpf_ktime_get_ns();

	cpu->freed.callers[0] = 0;
	cpu->freed.callers[1] = 0;
	if (now - walks->since >= WALK_SPAN) {
		walks->since = now;
		walks->count = 0;
	}
	if (walks->count >= WALKS)
		return;
	walks->count++;
	find_hook_callers(ctx, &walks->stack, cpu->freed.callers);
}

/* judge_freed says what the packet in cpu->packet, freed at v->place, died of. */
static __noinline __u8 judge_freed(struct cpu_state *cpu, struct mark *mark, __u8 state,
				   struct reason_outcomes outcomes)
{
	struct verdict *v = &cpu->verdict;
	bool in_tcp = in_code(rcv_ranges, MAX_RANGES, v->place) ||
		      in_code(kfree_ranges, 4, v->place);
	__u8 outcome = outcomes.syn;

	v->proof = have_reason ? PROOF_REASON : PROOF_HELPER;
	if (!is_syn(cpu)) {
		/* Another listener of its group may have been given it, and reset it. */
		if (cpu->dropped_request.key && in_tcp &&
		    same_flow(&cpu->dropped_request.packet, &cpu->packet)) {
			v->proof = PROOF_HELPER;
			v->sk = cpu->dropped_request.sk;
			return OUTCOME_ACK_LISTENER_CLOSED;
		}
		if (v->sk) {
			/* A listener discards an RST that fits no handshake. */
			if (!mark->checked && cpu->packet.flags & TCP_FLAG_RST &&
			    in_code(state_ranges, 4, v->place))
				return OUTCOME_NONE;
			if (!(cpu->packet.flags & (TCP_FLAG_ACK | TCP_FLAG_RST | TCP_FLAG_SYN)))
				return OUTCOME_NONE;
			if (mark->reset || mark->checked)
				v->proof = mark->reset ? PROOF_HELPER : PROOF_RETURN;
			return ack_outcome(outcomes.ack, mark->reset, mark->checked);
		}
		return OUTCOME_NONE;
	}
	if (state == TCP_TIME_WAIT || mark->timewait) {
		v->proof = mark->timewait ? PROOF_RETURN : PROOF_REASON;
		return outcome == OUTCOME_INGRESS_TIME_WAIT_PAWS ? outcome :
								   OUTCOME_INGRESS_TIME_WAIT;
	}
	if (outcome == OUTCOME_INGRESS_TIME_WAIT_PAWS)
		return outcome;
	if (outcome == OUTCOME_INGRESS_OTHER_CONNECTION && !v->sk && !mark->checked &&
	    state != TCP_SYN_RECV)
		return OUTCOME_INGRESS_OTHER_CONNECTION;
	if (outcome == OUTCOME_ACK_BAD_QUIET || outcome == OUTCOME_INGRESS_OTHER_CONNECTION)
		return v->sk ? OUTCOME_ACK_BAD_QUIET : OUTCOME_INGRESS_OTHER;
	if (outcome == OUTCOME_NONE && in_tcp) {
		if (mark->checked) { /* sent again, or another one in its place */
			v->proof = PROOF_RETURN;
			return mark->isn == cpu->packet.isn ? OUTCOME_NONE :
			       mark->reset		    ? OUTCOME_ACK_BAD_ANSWERED :
							      OUTCOME_ACK_BAD_QUIET;
		}
		if (!have_reason && mark->reset && !v->sk) {
			v->proof = PROOF_HELPER;
			return OUTCOME_INGRESS_NO_LISTENER;
		}
		if (v->sk || !(have_listen_path || have_rx_sk))
			return OUTCOME_NONE; /* its request's, or nobody knows whose */
	}
	if (outcome == OUTCOME_INGRESS_NETFILTER && cpu->freed.answered) {
		v->proof = PROOF_HELPER;
		return OUTCOME_INGRESS_NETFILTER_REJECT;
	}
	if (outcome == OUTCOME_NONE || outcome == OUTCOME_INGRESS_OTHER)
		outcome = v->sk ? OUTCOME_SYN_OTHER_FREED : OUTCOME_INGRESS_OTHER;
	if (outcome == OUTCOME_INGRESS_OTHER && cpu->freed.answered) {
		v->proof = PROOF_HELPER;
		return OUTCOME_INGRESS_OTHER_REFUSED;
	}
	if (!answers_watched) { /* whether it was answered is not known */
		if (outcome == OUTCOME_INGRESS_NETFILTER)
			__sync_fetch_and_add(&unwatched_rules, 1);
		if (outcome == OUTCOME_INGRESS_OTHER)
			__sync_fetch_and_add(&unwatched_others, 1);
	}
	return outcome;
}

/* settle_dropped takes a packet that is freed, once it is known to be inbound TCP. */
static __noinline int settle_dropped(struct cpu_state *cpu, struct sk_buff *skb, __u64 net,
				     __u8 state, struct reason_outcomes outcomes)
{
	struct verdict *v = &cpu->verdict;
	struct mark mark = take_mark(cpu, skb);
	struct tally *tally;
	__u8 outcome;

	if (mark.settled)
		return 0;
	if (!v->sk)
		v->sk = mark.sk;
	outcome = judge_freed(cpu, &mark, state, outcomes);
	forget_dropped_request(cpu);
	if (outcome == OUTCOME_NONE) {
		if (outcomes.syn == OUTCOME_NONE && is_syn(cpu))
			count_syn_retransmit(cpu, v->sk);
		return 0;
	}
	tally = find_tally(cpu, net);
	if (!tally || !cpu->gate)
		return 0;
	v->listener_proof = v->sk ? LISTENER_GIVEN : LISTENER_UNKNOWN;
	if (before_listener(outcome)) {
		v->sk = 0;
		v->listener_proof = LISTENER_UNKNOWN;
		return account(outcome);
	}
	if (!v->sk) {
		read_devices(cpu, as_number(cpu, skb));
		choose_member(cpu, find_receiver(cpu, net), v);
	}
	if (is_syn(cpu) && !mark.checked && !cpu->freed.arrived)
		count_arrival_of(cpu, v->sk, true);
	return account(outcome);
}

/* skb_dropped is kfree_skb. Most of what it frees is none of ours. */
static __always_inline int skb_dropped(struct sk_buff *skb, __u64 location, __u32 reason,
				       struct sock *rx_sk, void *ctx, bool twin)
{
	struct cpu_state *cpu;
	struct verdict *v;
	struct reason_outcomes outcomes;
	__u8 state = 0;
	__u64 net;

	if (!is_ip(skb))
		return 0;
	cpu = this_cpu();
	if (!cpu || seen_before(cpu, (__u64)skb, twin))
		return 0;
	if (have_listen_path && in_code(cookie_ranges, 8, location)) {
		if (!parse_typed(cpu, skb))
			cpu->freed_early = as_number(cpu, skb); /* the exit is to come: 6.12 */
		return 0;
	}
	outcomes = outcomes_of_free(reason, location);
	if (outcomes.ack == OUTCOME_NONE)
		return 0;
	if (!skb->skb_iif && outcomes.syn != OUTCOME_INGRESS_CPU_BACKLOG)
		return 0; /* it did not come in */
	if (BPF_CORE_READ_BITFIELD(skb, pkt_type) == PACKET_OTHERHOST)
		return 0;
	if (parse_typed(cpu, skb))
		return 0; /* what moved, if anything, stays for one that can be read */
	net = as_number(cpu, skb_net(skb));
	if (!net || (filter.netns && filter.netns != netns_of(net)))
		return 0;
	v = &cpu->verdict;
	v->sk = 0;
	cpu->freed.met = 0;
	cpu->freed.arrived = false;
	/* An answer is this packet's if it was made just before. */
	cpu->freed.answered = cpu->rejected.packet.family &&
			      same_flow(&cpu->rejected.packet, &cpu->packet);
	cpu->freed.icmp_type = cpu->rejected.icmp_type;
	cpu->freed.icmp_code = cpu->rejected.icmp_code;
	cpu->rejected.packet.family = 0;
	if (rx_sk) {
		if (BPF_CORE_READ(rx_sk, sk_type) == SOCK_RAW)
			return 0; /* a copy, for a raw socket */
		state = BPF_CORE_READ(rx_sk, __sk_common.skc_state);
		if (state == TCP_LISTEN)
			v->sk = as_number(cpu, rx_sk);
		else if (state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV)
			cpu->freed.met = as_number(cpu, rx_sk);
	}
	if (!have_listen_path && in_code(rcv_ranges, MAX_RANGES, location)) {
		if (settled_by_counters(cpu, skb, net))
			return 0;
		cpu->freed.arrived = is_syn(cpu);
	}
	v->place = location;
	v->reason = reason;
	cpu->freed.device = skb->dev ? BPF_CORE_READ(skb, dev, ifindex) : skb->skb_iif;
	if (outcomes.syn == OUTCOME_INGRESS_NETFILTER && is_syn(cpu)) {
		cpu->freed.hook = hook_of(cpu, skb->_skb_refdst);
		note_callers(cpu, ctx);
	}
	return settle_dropped(cpu, skb, net, state, outcomes);
}

#endif
