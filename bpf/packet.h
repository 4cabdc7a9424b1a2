/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet says of itself. Addresses are kept as 16 bytes, IPv4 v4-mapped. */
#ifndef SYNSPY_PACKET_H
#define SYNSPY_PACKET_H

#include "cpu_state.h"
#include "ip.h"
#include "maps.h"
#include "read.h"

/* socket_id names a socket for as long as the machine runs: the address of one that is
 * closed goes to another soon, but never with the same cookie. */
static __always_inline __u64 socket_id(__u64 sk)
{
	return sk ? sk ^ LOAD(struct sock, sk, __sk_common.skc_cookie.counter) << 48 : 0;
}

/* past_extensions finds TCP behind the IPv6 header and its extensions; 0: not there. */
static __always_inline __u32 past_extensions(struct cpu_state *cpu, struct layout *at)
{
	__u32 next = cpu->wire.ip[IPV6_NEXTHDR], offset = at->network + 40;
	__u8 header[2] = {};

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			break;
		bpf_probe_read_kernel(header, 2, at->head + offset);
		next = header[0];
		offset += (header[1] + 1) * 8;
	}
	return next == IPPROTO_TCP ? offset : 0;
}

/* parse reads the addresses, ports, flags and initial sequence number of an inbound packet of TCP.
 * It returns -1 for any other; most that die are UDP. The transport header follows an IPv4 header,
 * which early drops have before skb->transport_header is set. */
static __always_inline int parse_at(struct cpu_state *cpu, struct layout at)
{
	struct packet *p = &cpu->packet;
	struct tcp_wire *tcp = &cpu->wire.tcp;
	__u32 *words = (__u32 *)cpu->wire.ip;

	p->family = 0;
	p->flags = 0;
	cpu->wire.start = (__u64)at.head + at.network;
	if (capture)
		cpu->wire.length = at.tail > at.network ? at.tail - at.network : 0;
	read_ip_start((__u64 *)cpu->wire.ip, at.head + at.network);
	if (cpu->wire.ip[0] >> 4 == 4) {
		p->protocol = cpu->wire.ip[IPV4_PROTOCOL];
		if (p->protocol != IPPROTO_TCP ||
		    *(__be16 *)(cpu->wire.ip + IPV4_FRAGMENT) & bpf_htons(0x1fff))
			return -1; /* or not the first piece */
		read_ip_rest((__u64 *)cpu->wire.ip, at.head + at.network, 1);
		map_v4(p->client, words[IPV4_SADDR / 4]);
		map_v4(p->server, words[IPV4_DADDR / 4]);
		p->family = AF_INET;
		at.transport = at.network + (cpu->wire.ip[0] & 15) * 4;
	} else if (cpu->wire.ip[0] >> 4 == 6) {
		read_ip_rest((__u64 *)cpu->wire.ip, at.head + at.network, 3);
		__builtin_memcpy(p->client, cpu->wire.ip + IPV6_SADDR, 16);
		__builtin_memcpy(p->server, cpu->wire.ip + IPV6_DADDR, 16);
		p->family = AF_INET6;
		at.transport = past_extensions(cpu, &at);
		if (!at.transport)
			return -1; /* no TCP, or not the first piece */
		p->protocol = IPPROTO_TCP;
	} else {
		return -1;
	}
	read_words((__u64 *)tcp, at.head + at.transport, sizeof(*tcp) / 8);
	p->client_port = bpf_ntohs(tcp->source);
	p->server_port = bpf_ntohs(tcp->dest);
	p->flags = tcp->flags;
	p->isn = bpf_ntohl(tcp->seq);
	if (!(tcp->flags & TCP_FLAG_SYN))
		p->isn--; /* the first byte after a SYN */
	p->ifindex = at.ifindex;
	return 0;
}

static __noinline int parse(struct cpu_state *cpu, struct sk_buff *skb)
{
	return parse_at(cpu, layout_of(skb));
}

/* parse_typed is the same where the verifier knows that it is a packet: loads are plain. */
static __always_inline int parse_typed(struct cpu_state *cpu, struct sk_buff *skb)
{
	return parse_at(cpu, (struct layout){ skb->head, skb->network_header, skb->transport_header,
					      skb->skb_iif, skb->tail });
}

/* parse_quoted reads the handshake that an ICMP error answers: its payload begins with
 * our SYN-ACK. */
static __noinline int parse_quoted(struct cpu_state *cpu, struct sk_buff *skb)
{
	struct layout at = layout_of(skb);
	struct packet *p = &cpu->packet;
	__u32 *words = (__u32 *)cpu->wire.ip;
	__u64 ports = 0;
	__u32 length = 40;

	p->family = 0;
	p->flags = TCP_FLAG_ACK;
	p->isn = 0;
	p->ifindex = at.ifindex;
	read_words((__u64 *)cpu->wire.ip, at.head + at.transport + ICMP_HEADER,
		   sizeof(cpu->wire.ip) / 8);
	if (cpu->wire.ip[0] >> 4 == 4 && cpu->wire.ip[IPV4_PROTOCOL] == IPPROTO_TCP) {
		length = (cpu->wire.ip[0] & 15) * 4;
		map_v4(p->server, words[IPV4_SADDR / 4]);
		map_v4(p->client, words[IPV4_DADDR / 4]);
		p->family = AF_INET;
	} else if (cpu->wire.ip[0] >> 4 == 6 && cpu->wire.ip[IPV6_NEXTHDR] == IPPROTO_TCP) {
		__builtin_memcpy(p->server, cpu->wire.ip + IPV6_SADDR, 16);
		__builtin_memcpy(p->client, cpu->wire.ip + IPV6_DADDR, 16);
		p->family = AF_INET6;
	} else {
		return -1;
	}
	read_words(&ports, at.head + at.transport + ICMP_HEADER + length, 1);
	p->server_port = bpf_ntohs(ports & 0xffff);
	p->client_port = bpf_ntohs(ports >> 16 & 0xffff);
	return 0;
}

/* fingerprint tells a packet from another at the same address. */
static __always_inline __u64 fingerprint(struct packet *p)
{
	return ((__u64)p->isn << 32 | (__u32)p->client_port << 16 | p->server_port) ^ p->flags;
}

static __always_inline bool is_syn(struct cpu_state *cpu)
{
	return (cpu->packet.flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
}

/* same_flow: the half-open handshake is the packet's. */
static __always_inline bool same_flow(struct packet *a, struct packet *b)
{
	const __u64 *x = (const __u64 *)a->client, *y = (const __u64 *)b->client;

	return a->client_port == b->client_port && a->server_port == b->server_port &&
	       x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline __u8 tcp_flags(struct sk_buff *skb)
{
	struct layout at = layout_of(skb);
	struct tcp_wire tcp = {};

	read_words((__u64 *)&tcp, at.head + at.transport, sizeof(tcp) / 8);
	return tcp.flags;
}

/* parse_request reads the same from a socket: a half-open handshake or a child. */
static __always_inline void parse_request(struct packet *p, struct sock *sk)
{
	__u32 *server = (__u32 *)p->server;

	p->flags = TCP_FLAG_ACK;
	p->family = AF_INET;
	p->isn = 0;
	/* What it has from its listener, or from a VRF (inet_request_bound_dev_if). */
	p->ifindex = LOAD(struct sock, sk, __sk_common.skc_bound_dev_if);
	p->client_port = bpf_ntohs(LOAD(struct sock, sk, __sk_common.skc_dport));
	p->server_port = LOAD(struct sock, sk, __sk_common.skc_num);
	if (LOAD(struct sock, sk, __sk_common.skc_family) == AF_INET) {
		map_v4(p->server, LOAD(struct sock, sk, __sk_common.skc_rcv_saddr));
		map_v4(p->client, LOAD(struct sock, sk, __sk_common.skc_daddr));
		return;
	}
	BPF_CORE_READ_INTO(&p->server, sk, __sk_common.skc_v6_rcv_saddr);
	BPF_CORE_READ_INTO(&p->client, sk, __sk_common.skc_v6_daddr);
	if (server[0] || server[1] || server[2] != bpf_htonl(0xffff))
		p->family = AF_INET6;
}

#endif
