/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Deaths that move no counter of the listen path: SYNs freed before any listener, and
 * packets of a half-open handshake that did not fit it. All are seen at kfree_skb,
 * whatever hooks the listen path; earlier hooks leave a mark of what they learnt.
 */
#ifndef SYNSPY_DEATH_H
#define SYNSPY_DEATH_H

#include "freed.h"
#include "netfilter.h"
#include "record.h"

/* tally_of finds or begins this CPU's tally of a namespace, in which something died that moved
 * no counter: where there is no room, that of other namespaces, which is as exact. */
static __noinline struct tally *tally_of(struct cpu_state *cpu, __u64 net)
{
	struct tally *tally;

	cpu->moved.net = net;
	cpu->moved.id = net_id(net);
	tally = tally_here(cpu->moved.id);
	if (tally || !cpu->gate)
		return tally;
	begin_opening(net, false);
	tally = begin_tally(cpu, net);
	return tally ? tally : tally_here(0);
}

/* fate_of says what a packet died of by the reason it is freed for, or by the function that
 * frees it. */
static __always_inline struct fate fate_of(__u32 reason, __u64 location)
{
	const struct fate unsaid = { OUTCOME_NONE, OUTCOME_ACK_BAD_QUIET };
	const struct fate other = { OUTCOME_INGRESS_OTHER, OUTCOME_ACK_OTHER_FREED };
	struct fate fate;

	if (have_reason) {
		if (reason >= MAX_REASONS)
			return other;
		asm volatile(
			""
			: "+r"(reason)); /* the mask stays, for verifiers that forget what was spilled (6.1) */
		fate = fates[reason & (MAX_REASONS - 1)];
		if (fate.syn != unsaid.syn || fate.ack != unsaid.ack)
			return fate;
	}
#pragma unroll
	for (int i = 0; i < MAX_PLACES; i++) {
		if (!places[i].size)
			break;
		if (location - places[i].start < places[i].size)
			return places[i].fate;
	}
	return have_reason || in_code(kfree_ranges, 4, location) ? unsaid : other;
}

/* ack_fate is what killed a packet of a half-open handshake. known: it was seen to be
 * refused as such; else the kernel's reason must say so. */
static __always_inline __u8 ack_fate(__u8 outcome, bool reset, bool known)
{
	if (outcome == OUTCOME_ACK_OTHER_FREED && (reset || known))
		outcome = OUTCOME_ACK_BAD_QUIET;
	if (outcome != OUTCOME_ACK_BAD_QUIET)
		return outcome;
	if (reset && !known && !have_gone) /* its own listener may have closed */
		return OUTCOME_ACK_OTHER_ANSWERED;
	return reset ? OUTCOME_ACK_BAD_ANSWERED : OUTCOME_ACK_BAD_QUIET;
}

/* same_flow: the half-open handshake is the packet's. */
static __always_inline bool same_flow(struct packet *a, struct packet *b)
{
	const __u64 *x = (const __u64 *)a->client, *y = (const __u64 *)b->client;

	return a->client_port == b->client_port && a->server_port == b->server_port &&
	       x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

#define ICMP_DEST_UNREACH 3
#define ICMPV6_DEST_UNREACH 1

/* refusal reads the flow that an answer without a socket is about: an RST, or an ICMP error,
 * which quotes the packet that it answers. */
static __always_inline bool refusal(struct cpu_state *cpu, struct sk_buff *skb)
{
	__u64 icmp = 0;

	cpu->rejected.icmp_type = 0;
	if (!parse(cpu, skb))
		return cpu->packet.flags & TCP_FLAG_RST;
	if (cpu->wire.ip[0] >> 4 == 4 ? cpu->wire.ip[IPV4_PROTOCOL] != IPPROTO_ICMP :
					cpu->wire.ip[IPV6_NEXTHDR] != IPPROTO_ICMPV6)
		return false;
	read_words(&icmp,
		   (void *)(cpu->wire.start +
			    (cpu->wire.ip[0] >> 4 == 4 ? (cpu->wire.ip[0] & 15) * 4 : 40)),
		   1);
	if ((icmp & 0xff) != (cpu->wire.ip[0] >> 4 == 4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH))
		return false;
	cpu->rejected.icmp_type = icmp;
	cpu->rejected.icmp_code = icmp >> 8;
	return !parse_quoted(cpu, skb);
}

/* rejected: an answer that no connection sends, made here and now, is netfilter's or the
 * routing's to the packet that is freed next. The kernel sends its ICMP by raw sockets of its own. */
static __always_inline int rejected(struct sk_buff *skb)
{
	struct cpu_state *cpu;
	struct sock *sk = skb->sk;
	struct packet *p;

	if (skb->skb_iif ||
	    (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)))
		return 0;
	/* Most often it is a handshake's. */
	if (sk && (sk->__sk_common.skc_state != TCP_CLOSE ||
		   (sk->sk_protocol != IPPROTO_ICMP && sk->sk_protocol != IPPROTO_ICMPV6)))
		return 0;
	cpu = this_cpu();
	if (!cpu || !refusal(cpu, skb))
		return 0;
	p = &cpu->rejected.packet;
	__builtin_memcpy(p->client, cpu->packet.server, 16);
	__builtin_memcpy(p->server, cpu->packet.client, 16);
	p->client_port = cpu->packet.server_port;
	p->server_port = cpu->packet.client_port;
	p->family = cpu->packet.family;
	return 0;
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

/* name_death says what the packet in cpu->packet, freed at cpu->verdict.place, died of. */
static __noinline __u8 name_death(struct cpu_state *cpu, struct mark *mark, __u8 state,
				  struct fate fate)
{
	bool in_tcp = in_code(rcv_ranges, MAX_RANGES, cpu->verdict.place) ||
		      in_code(kfree_ranges, 4, cpu->verdict.place);
	__u8 outcome = fate.syn;

	cpu->verdict.proof = have_reason ? PROOF_REASON : PROOF_HELPER;
	if (!is_syn(cpu)) {
		/* Another listener of its group may have been given it, and reset it. */
		if (cpu->orphan.key && in_tcp && same_flow(&cpu->orphan.packet, &cpu->packet)) {
			cpu->verdict.proof = PROOF_HELPER;
			cpu->freed.given = cpu->orphan.sk;
			return OUTCOME_ACK_LISTENER_CLOSED;
		}
		if (cpu->freed.given) {
			/* A listener discards an RST that fits no handshake. */
			if (!mark->checked && cpu->packet.flags & TCP_FLAG_RST &&
			    in_code(state_ranges, 4, cpu->verdict.place))
				return OUTCOME_NONE;
			if (!(cpu->packet.flags & (TCP_FLAG_ACK | TCP_FLAG_RST | TCP_FLAG_SYN)))
				return OUTCOME_NONE;
			if (mark->reset || mark->checked)
				cpu->verdict.proof = mark->reset ? PROOF_HELPER : PROOF_RETURN;
			return ack_fate(fate.ack, mark->reset, mark->checked);
		}
		return OUTCOME_NONE;
	}
	if (state == TCP_TIME_WAIT || mark->timewait) {
		cpu->verdict.proof = mark->timewait ? PROOF_RETURN : PROOF_REASON;
		return outcome == OUTCOME_INGRESS_TIME_WAIT_PAWS ? outcome :
								   OUTCOME_INGRESS_TIME_WAIT;
	}
	if (outcome == OUTCOME_INGRESS_TIME_WAIT_PAWS)
		return outcome;
	if (outcome == OUTCOME_INGRESS_OTHER_CONNECTION && !cpu->freed.given && !mark->checked &&
	    state != TCP_SYN_RECV)
		return OUTCOME_INGRESS_OTHER_CONNECTION;
	if (outcome == OUTCOME_ACK_BAD_QUIET || outcome == OUTCOME_INGRESS_OTHER_CONNECTION)
		return cpu->freed.given ? OUTCOME_ACK_BAD_QUIET : OUTCOME_INGRESS_OTHER;
	if (outcome == OUTCOME_NONE && in_tcp) {
		if (mark->checked) { /* sent again, or another one in its place */
			cpu->verdict.proof = PROOF_RETURN;
			return mark->isn == cpu->packet.isn ? OUTCOME_NONE :
			       mark->reset		    ? OUTCOME_ACK_BAD_ANSWERED :
							      OUTCOME_ACK_BAD_QUIET;
		}
		if (!have_reason && mark->reset && !cpu->freed.given) {
			cpu->verdict.proof = PROOF_HELPER;
			return OUTCOME_INGRESS_NO_LISTENER;
		}
		if (cpu->freed.given || !(have_path || have_rx_sk))
			return OUTCOME_NONE; /* its request's, or nobody knows whose */
	}
	if (outcome == OUTCOME_INGRESS_NETFILTER && cpu->freed.answered) {
		cpu->verdict.proof = PROOF_HELPER;
		return OUTCOME_INGRESS_NETFILTER_REJECT;
	}
	if (outcome == OUTCOME_NONE || outcome == OUTCOME_INGRESS_OTHER)
		outcome = cpu->freed.given ? OUTCOME_SYN_OTHER_FREED : OUTCOME_INGRESS_OTHER;
	if (outcome == OUTCOME_INGRESS_OTHER && cpu->freed.answered) {
		cpu->verdict.proof = PROOF_HELPER;
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

/* died_at takes a packet that is freed, once it is known to be inbound TCP. */
static __noinline int died_at(struct cpu_state *cpu, struct sk_buff *skb, __u64 net, __u8 state,
			      struct fate fate)
{
	__u8 outcome, proof = LISTENER_GIVEN;
	struct mark mark = {};
	struct tally *tally;
	__u64 likely;

	if (cpu->mark.skb == (__u64)skb && cpu->mark.print == print_of(&cpu->packet)) {
		mark = cpu->mark;
		cpu->mark.skb = 0;
	}
	if (mark.settled)
		return 0;
	if (!cpu->freed.given)
		cpu->freed.given = mark.sk;
	outcome = name_death(cpu, &mark, state, fate);
	cpu->orphan.key = 0;
	if (outcome == OUTCOME_NONE) {
		if (fate.syn == OUTCOME_NONE && is_syn(cpu))
			asked_again(cpu);
		return 0;
	}
	tally = tally_of(cpu, net);
	if (!tally || !cpu->gate)
		return 0;
	if (before_listener(outcome))
		return account(0, LISTENER_UNKNOWN, outcome);
	if (!cpu->freed.given) {
		came_by(cpu, number(cpu, skb));
		likely = receiver_of(cpu, net);
		proof = choose(cpu, likely);
		cpu->freed.given = cpu->lookup.found;
	}
	if (is_syn(cpu) && !mark.checked && !cpu->freed.arrived)
		arrived_at_socket(cpu, cpu->freed.given, true);
	return account(cpu->freed.given, proof, outcome);
}

/* dropped is kfree_skb. Most of what it frees is none of ours. */
static __always_inline int dropped(struct sk_buff *skb, __u64 location, __u32 reason,
				   struct sock *rx_sk, void *ctx, bool twin)
{
	struct cpu_state *cpu;
	struct fate fate;
	__u8 state = 0;
	__u64 net;

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return 0;
	cpu = this_cpu();
	if (!cpu || seen_before(cpu, (__u64)skb, twin))
		return 0;
	if (have_path && in_code(cookie_ranges, 8, location)) {
		if (!parse_typed(cpu, skb))
			cpu->freed_early = number(cpu, skb); /* the exit is to come: 6.12 */
		return 0;
	}
	fate = fate_of(reason, location);
	if (fate.ack == OUTCOME_NONE)
		return 0;
	if (!skb->skb_iif && fate.syn != OUTCOME_INGRESS_CPU_BACKLOG)
		return 0; /* it did not come in */
	if (BPF_CORE_READ_BITFIELD(skb, pkt_type) == PACKET_OTHERHOST)
		return 0;
	if (parse_typed(cpu, skb))
		return 0; /* what moved, if anything, stays for one that can be read */
	net = number(cpu, skb_net(skb));
	if (!net || (filter.netns && filter.netns != netns_of(net)))
		return 0;
	cpu->freed.given = 0;
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
			cpu->freed.given = number(cpu, rx_sk);
		else if (state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV)
			cpu->freed.met = number(cpu, rx_sk);
	}
	if (!have_path && in_code(rcv_ranges, MAX_RANGES, location) &&
	    settled_by_counters(cpu, skb, net))
		return 0;
	cpu->verdict.place = location;
	cpu->verdict.reason = reason;
	cpu->freed.device = skb->dev ? BPF_CORE_READ(skb, dev, ifindex) : skb->skb_iif;
	if (fate.syn == OUTCOME_INGRESS_NETFILTER && is_syn(cpu)) {
		cpu->freed.hook = hook_of(cpu, skb->_skb_refdst);
		note_callers(cpu, ctx);
	}
	return died_at(cpu, skb, net, state, fate);
}

/* answered is tcp_send_reset for a packet: an RST was its answer. */
static __always_inline int answered(struct sock *sk, struct sk_buff *skb)
{
	struct cpu_state *cpu = this_cpu();
	__u64 print;

	if (!cpu || parse(cpu, skb))
		return 0;
	print = print_of(&cpu->packet);
	if (cpu->mark.skb != (__u64)skb || cpu->mark.print != print)
		cpu->mark = (struct mark){ .skb = number(cpu, skb), .print = print };
	cpu->mark.reset = true;
	if (sk && BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN)
		cpu->mark.sk = number(cpu, sk);
	return 0;
}

/* reset_queued is tcp_send_reset without a packet: a socket that is closed. Those
 * that no process ever had, reset by the task that closes their listener, were queued. */
static __always_inline int reset_queued(struct sock *child)
{
	__u64 task = bpf_get_current_pid_tgid(), *closed, sk, net;
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;
	__u16 port;

	if (!cpu || !cpu->gate || LOAD(struct sock, child, sk_socket))
		return 0;
	closed = bpf_map_lookup_elem(&closing, &task);
	if (!closed)
		return 0;
	sk = *closed;
	net = (__u64)BPF_CORE_READ(child, __sk_common.skc_net.net);
	port = bpf_ntohs(
		BPF_CORE_READ((struct inet_sock *)child, inet_sport)); /* skc_num is 0 by now */
	if (net != (__u64)BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net) ||
	    port != BPF_CORE_READ((struct sock *)sk, __sk_common.skc_num) ||
	    (filter.netns && filter.netns != netns_of(net)))
		return 0;
	tally = tally_of(cpu, net);
	if (!tally)
		return 0;
	parse_request(&cpu->packet, child);
	cpu->packet.server_port = port;
	proven_by(cpu, PROOF_HELPER);
	return account(sk, LISTENER_GIVEN, OUTCOME_CLOSE_LISTENER_CLOSED);
}

static __always_inline int reset_sent(struct sock *sk, struct sk_buff *skb)
{
	if (skb)
		return answered(sk, skb);
	return sk ? reset_queued(sk) : 0;
}

static __always_inline struct request_sock *request_of(__u64 timer)
{
	return (struct request_sock *)(timer -
				       bpf_core_field_offset(struct request_sock, rsk_timer));
}

static __always_inline __u64 migrations_of(struct cpu_state *cpu, __u64 sk)
{
	__u64 count = 0, mib;

	if (!migrated)
		return 0;
	mib = (__u64)BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net, mib.net_statistics);
	bpf_probe_read_kernel(&count, 8, (void *)(mib + cpu->offset + migrated * 8));
	return count;
}

/* timer_begins keeps what a half-open handshake is, since its timer may free it. */
static __always_inline int timer_begins(__u64 timer)
{
	struct cpu_state *cpu = this_cpu();
	struct half_open *h;
	struct sock *request;
	__u64 sk;

	if (!cpu)
		return 0;
	timer = number(cpu, (void *)timer);
	h = &cpu->timer;
	h->key = timer;
	request = (struct sock *)request_of(timer);
	sk = (__u64)BPF_CORE_READ(request, __sk_common.skc_listener);
	h->sk = sk;
	h->migrations = migrations_of(cpu, sk);
	h->early = BPF_CORE_READ_BITFIELD_PROBED((struct request_sock *)request, num_timeout) < 2 &&
		   !BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_syn_retries);
	parse_request(&h->packet, request);
	return 0;
}

/* timer_ends: a handshake whose timer does not wait again is over, unless another
 * listener of its SO_REUSEPORT group took it over. */
static __always_inline int timer_ends(__u64 timer)
{
	struct cpu_state *cpu = this_cpu();
	struct tally *tally;
	struct half_open *h;
	__u8 outcome = OUTCOME_TIMER_HANDSHAKE_EXPIRED;
	__u64 net, sk;

	if (!cpu || !cpu->timer.key)
		return 0;
	h = &cpu->timer;
	sk = h->sk;
	if (!timer) /* a kretprobe is not told */
		timer = h->key;
	if (h->key != timer)
		return 0;
	h->key = 0;
	cpu->orphan.key = 0; /* what this timer drops, no ACK did */
	if (BPF_CORE_READ((struct timer_list *)timer, entry.pprev) || !cpu->gate ||
	    migrations_of(cpu, sk) != h->migrations)
		return 0;
	net = (__u64)BPF_CORE_READ((struct sock *)sk, __sk_common.skc_net.net);
	if (filter.netns && filter.netns != netns_of(net))
		return 0;
	if (BPF_CORE_READ((struct sock *)sk, __sk_common.skc_state) != TCP_LISTEN)
		outcome = OUTCOME_TIMER_LISTENER_CLOSED;
	tally = tally_of(cpu, net);
	if (!tally)
		return 0;
	cpu->packet = h->packet;
	proven_by(cpu, PROOF_HELPER);
	return account(sk, LISTENER_GIVEN, outcome);
}

/* orphaned: a half-open handshake is dropped; if for an ACK whose listener is gone,
 * that ACK is freed next. */
static __always_inline int orphaned(__u64 sk, __u64 request)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu || LOAD(struct sock, sk, __sk_common.skc_state) == TCP_LISTEN)
		return 0;
	sk = number(cpu, (void *)sk);
	request = number(cpu, (void *)request);
	parse_request(&cpu->orphan.packet, (struct sock *)request);
	cpu->orphan.sk = sk;
	cpu->orphan.key = request;
	return 0;
}

/* cancelled is a half-open handshake's timer that is stopped, which its drop does
 * (reqsk_queue_unlink), and its success. Either tells whom its SYN was given to. */
static __always_inline int cancelled(__u64 timer)
{
	struct sock *request = (struct sock *)request_of(timer);
	__u64 sk = (__u64)LOAD(struct sock, request, __sk_common.skc_listener);

	if (LOAD(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return orphaned(sk, (__u64)request);
	return learn(sk, (__u64)request);
}

#endif
