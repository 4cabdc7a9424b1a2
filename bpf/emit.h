/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A record of a packet, written into the ring buffer. */
#ifndef SYNSPY_EMIT_H
#define SYNSPY_EMIT_H

#include "cpu_state.h"
#include "listener.h"
#include "maps.h"
#include "packet.h"

/* identify fills in a listener from its socket. */
static __noinline int identify(struct cpu_state *cpu, struct listener *l, __u64 sk, __u8 proof)
{
	l->id = 0;
	l->proof = proof;
	if (!sk)
		return 0;
	count_group(sk);
	listener_read((struct sock *)sk, l);
	l->reuse_members = cpu->group.members;
	l->reuse_full = cpu->group.members_full;
	return 0;
}

static __always_inline bool is_drop(__u8 outcome)
{
	return outcome != OUTCOME_SYN_COOKIE_SENT && outcome != OUTCOME_SYN_FASTOPEN_QUEUE_FULL &&
	       outcome != OUTCOME_ACK_DEFER_ACCEPT;
}

/* has_packet: a timer's or a closing listener's victims are no packets. */
static __always_inline bool has_packet(__u8 outcome)
{
	return outcome != OUTCOME_TIMER_HANDSHAKE_EXPIRED &&
	       outcome != OUTCOME_TIMER_LISTENER_CLOSED && outcome != OUTCOME_CLOSE_LISTENER_CLOSED;
}

static __always_inline bool before_listener(__u8 outcome)
{
	return outcome >= OUTCOME_INGRESS_NO_LISTENER && outcome <= OUTCOME_INGRESS_OTHER_REFUSED;
}

/* wakeup wakes the reader when much waits. Else the kernel does for the first message in an empty
 * ring, which then waits for others: so does not each of them. */
static __always_inline __u64 wakeup(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= wakeup_bytes ? BPF_RB_FORCE_WAKEUP :
									     0;
}

/* wire_length is how long the packet was, by its IP header. */
static __always_inline __u32 wire_length(struct cpu_state *cpu)
{
	if (cpu->packet.family == AF_INET6)
		return 40 + bpf_ntohs(*(__be16 *)(cpu->wire.ip + IPV6_LENGTH));
	return bpf_ntohs(*(__be16 *)(cpu->wire.ip + IPV4_LENGTH));
}

/* copy_packet copies what lies together of it: the headers do. */
static __always_inline void copy_packet(struct cpu_state *cpu, struct captured *to, __u8 outcome)
{
	__u32 length = wire_length(cpu);

	if (length > cpu->wire.length)
		length = cpu->wire.length;
	if (length > MAX_CAPTURE)
		length = MAX_CAPTURE;
	length &= MAX_CAPTURE;
	to->length = 0;
	if (cpu->packet.family && has_packet(outcome) && outcome != OUTCOME_ICMP_ERROR &&
	    !bpf_probe_read_kernel(to->bytes, length, (void *)cpu->wire.start))
		to->length = length;
}

/* emit writes a record. cpu->packet is the packet. */
static __always_inline void emit(struct cpu_state *cpu, struct record *record, struct verdict *v,
				 __u32 netns, __u32 attempt)
{
	struct packet *p = &cpu->packet;
	__u8 outcome = v->outcome;
	__u64 met = cpu->freed.met; /* within LOAD it would be looked for in the kernel's types */

	if (capture)
		copy_packet(cpu, (struct captured *)record, outcome);
	record->kind = MESSAGE_RECORD;
	record->outcome = outcome;
	record->family = p->family;
	record->proof = v->proof;
	record->attempt = attempt;
	record->reason = v->reason;
	record->netns = netns;
	record->place = v->place;
	record->time = bpf_ktime_get_ns();
	record->client_port = p->client_port;
	record->server_port = p->server_port;
	record->isn = p->isn;
	record->callers[0] = 0;
	record->callers[1] = 0;
	record->hook = HOOK_UNKNOWN;
	record->icmp_type = 0;
	record->icmp_code = 0;
	record->unsent = outcome == OUTCOME_TIMER_HANDSHAKE_EXPIRED && cpu->timer.early;
	record->pad = 0;
	record->device = before_listener(outcome) ? cpu->freed.device : 0;
	record->met_inode = 0;
	record->met_state = 0;
	if (outcome == OUTCOME_INGRESS_OTHER_CONNECTION && met) {
		record->met_state = LOAD(struct sock, met, __sk_common.skc_state);
		record->met_inode = socket_inode((struct sock *)met);
	}
	if (outcome == OUTCOME_INGRESS_NETFILTER || outcome == OUTCOME_INGRESS_NETFILTER_REJECT) {
		record->hook = cpu->freed.hook;
		record->callers[0] = cpu->freed.callers[0];
		record->callers[1] = cpu->freed.callers[1];
	}
	if (outcome == OUTCOME_INGRESS_NETFILTER_REJECT ||
	    outcome == OUTCOME_INGRESS_OTHER_REFUSED) {
		record->icmp_type = cpu->freed.icmp_type;
		record->icmp_code = cpu->freed.icmp_code;
	}
	__builtin_memcpy(record->client, p->client, 16);
	__builtin_memcpy(record->server, p->server, 16);
	__builtin_memset(&record->listener, 0, sizeof(record->listener));
	identify(cpu, &record->listener, v->sk, v->listener_proof);
	bpf_ringbuf_submit(record, wakeup());
}

#endif
