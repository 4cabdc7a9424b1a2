/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet says of itself. Addresses are kept as 16 bytes, IPv4 v4-mapped. */
#ifndef SYNSPY_PACKET_H
#define SYNSPY_PACKET_H

#include "compat.h"
#include "maps.h"

static __always_inline void map_v4(__u8 *to, __be32 addr)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = addr;
}

/* parse reads the addresses and, for TCP, the ports, flags and initial sequence
 * number of an inbound packet whose transport header is set. */
static __noinline int parse(struct packet *p, struct sk_buff *skb)
{
	unsigned char *head = BPF_CORE_READ(skb, head);
	unsigned char *ip = head + BPF_CORE_READ(skb, network_header);
	struct tcp_wire tcp = {};
	__u8 version = 0;
	__be32 addr;

	p->family = 0;
	p->flags = 0;
	bpf_probe_read_kernel(&version, 1, ip);
	if (version >> 4 == 4) {
		bpf_probe_read_kernel(&p->protocol, 1, ip + IPV4_PROTOCOL);
		bpf_probe_read_kernel(&addr, 4, ip + IPV4_SADDR);
		map_v4(p->client, addr);
		bpf_probe_read_kernel(&addr, 4, ip + IPV4_DADDR);
		map_v4(p->server, addr);
		p->family = AF_INET;
	} else if (version >> 4 == 6) {
		bpf_probe_read_kernel(&p->protocol, 1, ip + IPV6_NEXTHDR);
		bpf_probe_read_kernel(p->client, 16, ip + IPV6_SADDR);
		bpf_probe_read_kernel(p->server, 16, ip + IPV6_DADDR);
		p->family = AF_INET6;
	} else {
		return -1;
	}
	if (bpf_probe_read_kernel(&tcp, sizeof(tcp), head + BPF_CORE_READ(skb, transport_header)))
		return -1;
	p->client_port = bpf_ntohs(tcp.source);
	p->server_port = bpf_ntohs(tcp.dest);
	p->flags = tcp.flags;
	p->isn = bpf_ntohl(tcp.seq);
	if (!(tcp.flags & TCP_FLAG_SYN))
		p->isn--; /* the first byte after a SYN */
	p->ifindex = BPF_CORE_READ(skb, skb_iif);
	return 0;
}

static __always_inline __u8 tcp_flags(struct sk_buff *skb)
{
	unsigned char *head = BPF_CORE_READ(skb, head);
	__u8 flags = 0;

	bpf_probe_read_kernel(&flags, 1,
			      head + BPF_CORE_READ(skb, transport_header) +
				      __builtin_offsetof(struct tcp_wire, flags));
	return flags;
}

/* parse_request reads the same from a socket: a half-open handshake or a child. */
static __always_inline void parse_request(struct packet *p, struct sock *sk)
{
	__u32 *server = (__u32 *)p->server;

	p->flags = TCP_FLAG_ACK;
	p->family = AF_INET;
	p->isn = 0;
	p->ifindex = 0;
	p->client_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	p->server_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET) {
		map_v4(p->server, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		map_v4(p->client, BPF_CORE_READ(sk, __sk_common.skc_daddr));
		return;
	}
	BPF_CORE_READ_INTO(&p->server, sk, __sk_common.skc_v6_rcv_saddr);
	BPF_CORE_READ_INTO(&p->client, sk, __sk_common.skc_v6_daddr);
	if (server[0] || server[1] || server[2] != bpf_htonl(0xffff))
		p->family = AF_INET6;
}

#endif
