/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers that no connection sends: an RST or an ICMP error, made here and now, is netfilter's or
 * the routing's to the packet that is freed next.
 */
#ifndef SYNSPY_REJECT_H
#define SYNSPY_REJECT_H

#include "cpu_state.h"
#include "ip.h"
#include "packet.h"

#define ICMP_DEST_UNREACH 3
#define ICMPV6_DEST_UNREACH 1

/* read_refusal reads the flow that an answer without a socket is about: an RST, or an ICMP error,
 * which quotes the packet that it answers. */
static __always_inline bool read_refusal(struct cpu_state *cpu, struct sk_buff *skb)
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

/* rejected: an answer that no connection sends, made here and now, is netfilter's or the routing's
 * to the packet that is freed next. The kernel sends its ICMP by raw sockets of its own. */
static __always_inline int answer_sent(struct sk_buff *skb)
{
	struct cpu_state *cpu;
	struct sock *sk = skb->sk;
	struct packet *p;

	if (skb->skb_iif || !is_ip(skb))
		return 0;
	/* Most often it is a handshake's. */
	if (sk && (sk->__sk_common.skc_state != TCP_CLOSE ||
		   (sk->sk_protocol != IPPROTO_ICMP && sk->sk_protocol != IPPROTO_ICMPV6)))
		return 0;
	cpu = this_cpu();
	if (!cpu || !read_refusal(cpu, skb))
		return 0;
	p = &cpu->rejected.packet;
	__builtin_memcpy(p->client, cpu->packet.server, 16);
	__builtin_memcpy(p->server, cpu->packet.client, 16);
	p->client_port = cpu->packet.server_port;
	p->server_port = cpu->packet.client_port;
	p->family = cpu->packet.family;
	return 0;
}

#endif
