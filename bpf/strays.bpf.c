// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is neither drop nor arrival: SYN-ACKs that this host frees on their way out, SYNs in frames
 * for another host, segments of clients' that netfilter, tc or XDP drops, a handshake's ACK among
 * them, and, where one network namespace is asked about, SYNs for it that die in another one. An
 * object of its own, loaded by a diagnosis once answers go unacknowledged or nothing arrives, so
 * that nothing else pays for it.
 */
#include "drop_reason.h"
#include "ip.h"
#include "hook_callers.h"
#include "row.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAX_KINDS 512
#define ETH_ALEN 6

enum stray_kind {
	STRAY_ANSWER, /* a SYN-ACK */
	STRAY_FRAME, /* a SYN in a frame for another host */
	STRAY_SEGMENT, /* without SYN, to a server; a handshake's ACK, or a later one */
	STRAY_SYN, /* to an address of the only namespace asked about, and freed in another one */
};

/* What is counted together. server is the listener's end. */
struct stray {
	__u64 place; /* code address that freed it */
	__u64 callers[2]; /* of netfilter; 0: not it */
	__u32 reason; /* enum skb_drop_reason of this kernel; 0: none was told */
	__u32 netns; /* where it was freed */
	__u32 device; /* index of the one it was on; 0: none yet */
	__u16 port;
	__u8 kind; /* enum stray_kind */
	__u8 family; /* AF_INET or AF_INET6 */
	__u8 server[16];
	__u8 mac[ETH_ALEN]; /* that a frame was for */
	__u8 came_in; /* 1: by a device, so that it was sent by another namespace, or host */
	__u8 pad;
};

/* Reasons of what drops packets at ingress: netfilter, tc, generic XDP; 0: none here. */
const volatile __u32 ingress_reasons[3] = {};

#define MAX_ADDRESSES 16
struct address {
	__u64 half[2];
};
const volatile __u32 only_netns = 0; /* the only one asked about; 0: all are */
const volatile __u32 addresses = 0; /* used entries of address */
const volatile struct address address[MAX_ADDRESSES] = {}; /* its own, IPv4 as v4-mapped */

__u64 overflowed = 0; /* packets that strays had no room for */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_KINDS);
	__type(key, struct stray);
	__type(value, __u64); /* packets */
} strays SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call_stack);
} stacks SEC(".maps");

/* parse reads the headers; false: it is of no kind. */
static __always_inline bool parse(struct sk_buff *skb, struct stray *s)
{
	unsigned char *ip = skb->head + skb->network_header;
	__u8 header[40] = {}, transport = 40;
	struct tcp_wire tcp = {};
	bool answer;

	if (bpf_probe_read_kernel(header, sizeof(header), ip))
		return false;
	if (header[0] >> 4 == 4) {
		if (header[IPV4_PROTOCOL] != IPPROTO_TCP)
			return false;
		transport = (header[0] & 15) * 4;
		s->family = AF_INET;
	} else if (header[0] >> 4 == 6) {
		if (header[IPV6_NEXTHDR] !=
		    IPPROTO_TCP) /* a SYN-ACK of this host's has no extensions */
			return false;
		s->family = AF_INET6;
	} else {
		return false;
	}
	if (bpf_probe_read_kernel(&tcp, sizeof(tcp), ip + transport) || tcp.flags & TCP_FLAG_RST)
		return false;
	answer = tcp.flags & TCP_FLAG_SYN && tcp.flags & TCP_FLAG_ACK;
	if (!(tcp.flags & TCP_FLAG_SYN))
		s->kind = STRAY_SEGMENT;
	else
		s->kind = answer ? STRAY_ANSWER : STRAY_FRAME;
	s->port = bpf_ntohs(answer ? tcp.source : tcp.dest);
	if (s->family == AF_INET) {
		map_v4(s->server, *(__be32 *)(header + (answer ? IPV4_SADDR : IPV4_DADDR)));
	} else if (answer) {
		__builtin_memcpy(s->server, header + IPV6_SADDR, 16);
	} else {
		__builtin_memcpy(s->server, header + IPV6_DADDR, 16);
	}
	return true;
}

static __always_inline void note_callers(void *ctx, struct stray *s)
{
	__u32 zero = 0;
	struct call_stack *stack = bpf_map_lookup_elem(&stacks, &zero);

	if (stack)
		find_hook_callers(ctx, stack, s->callers);
}

/* at_ingress reports whether it is netfilter, tc or XDP that drops; tc and XDP are not told apart
 * without reasons. */
static __always_inline bool at_ingress(const struct stray *s)
{
	if (!have_reason)
		return in_code(hook_ranges, MAX_HOOK_RANGES, s->place);
	return s->reason && (s->reason == ingress_reasons[0] || s->reason == ingress_reasons[1] ||
			     s->reason == ingress_reasons[2]);
}

/* for_asked reports whether it is for an address of the namespace asked about. */
static __always_inline bool for_asked(const struct stray *s)
{
	const __u64 *server = (const __u64 *)s->server;

#pragma unroll
	for (__u32 i = 0; i < MAX_ADDRESSES; i++)
		if (i < addresses && server[0] == address[i].half[0] &&
		    server[1] == address[i].half[1])
			return true;
	return false;
}

SEC("tp_btf/kfree_skb")
int tp_btf_stray(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct net_device *dev = skb->dev;
	struct stray s = { .place = ctx[1],
			   .reason = kfree_skb_reason(ctx),
			   .came_in = skb->skb_iif != 0 };
	static const __u64 none = 0;
	__u64 *count;

	if (!is_ip(skb))
		return 0;
	if (!parse(skb, &s) || (s.kind == STRAY_SEGMENT && (!s.came_in || !at_ingress(&s))))
		return 0;
	if (s.kind == STRAY_FRAME && BPF_CORE_READ_BITFIELD(skb, pkt_type) != PACKET_OTHERHOST) {
		if (!only_netns || !s.came_in || !for_asked(&s))
			return 0;
		s.kind = STRAY_SYN;
	}
	if (s.kind == STRAY_FRAME) {
		bpf_probe_read_kernel(s.mac, ETH_ALEN, skb->head + skb->mac_header);
	} else {
		note_callers(ctx, &s);
	}
	if (dev)
		s.device = BPF_CORE_READ(dev, ifindex);
	else
		dev = BPF_CORE_READ((struct dst_entry *)(skb->_skb_refdst & SKB_DST_PTRMASK), dev);
	s.netns = dev ? BPF_CORE_READ(dev, nd_net.net, ns.inum) : 0;
	if (s.kind == STRAY_SYN && (!s.netns || s.netns == only_netns))
		return 0; /* there it is a drop, and counted as one */
	count = find_or_add(&strays, &s, &none);
	__sync_fetch_and_add(count ? count : &overflowed, 1);
	return 0;
}

/* For bpf2go: types that cross the maps. */
const enum stray_kind unused_stray_kind __attribute__((unused));
