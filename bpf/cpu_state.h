/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a CPU remembers from one hook to the next, and what a hook works with that its stack of 512
 * bytes has no room for. Each part is written by one header, which is named with it.
 */
#ifndef SYNSPY_CPU_STATE_H
#define SYNSPY_CPU_STATE_H

#include "event.h"
#include "kernel.h"
#include "hook_callers.h"

#define KNOWN_NAMESPACES 32
#define KNOWN_ARRIVALS 32

struct packet {
	__u8 family; /* 0: unknown */
	__u8 protocol;
	__u8 flags; /* of TCP */
	__u8 pad;
	__u16 client_port;
	__u16 server_port;
	__u32 isn;
	__u32 ifindex;
	__u8 client[16];
	__u8 server[16];
};

/* Which counters tell that something moved: a SYN can move few. */
enum signs {
	SIGNS_SYN,
	SIGNS_ACK,
	SIGNS_ANY,
	NUM_SIGNS,
};

/* A namespace whose counters this CPU looks at. */
struct namespace_counters {
	__u64 key; /* its struct net, and since when: see movement() */
	__u64 mib; /* address of its counters on this CPU */
	__u64 sums[NUM_SIGNS]; /* see movement() */
	__u64 id; /* whose the next are: another may have come to this address */
	__u64 unrouted[2]; /* IpOutNoRoutes and Ip6OutNoRoutes, when last looked at */
	__u64 routes[2]; /* addresses of these on this CPU; 0: not known */
};

struct arrival {
	__u64 key;
	__u64 sk;
	__u64 id; /* socket_id() of it */
	__u64 net; /* its namespace; 0: with tracepoints alone */
	struct arrivals seen;
	__u64 drops; /* by count_group(), when last looked at; with tracepoints alone */
};

/* What earlier hooks learnt of a packet that is about to be freed. */
struct mark {
	__u64 skb;
	__u64 print; /* of the packet: memory is used again at once */
	__u64 sk; /* its listener; 0: not known */
	__u32 isn; /* of the half-open handshake it was for */
	__u8 settled; /* it is accounted for */
	__u8 checked; /* tcp_check_req had it */
	__u8 reset; /* an RST answered it */
	__u8 timewait; /* a TIME_WAIT socket refused it */
};

/* A half-open handshake whose timer runs, or that was dropped for its listener's end. */
struct half_open {
	__u64 key;
	__u64 sk; /* its listener */
	__u64 migrations;
	bool early; /* its SYN-ACK was not sent again so often that it may be given up for that */
	struct packet packet;
};

/* What the entry hook of a function leaves for its exit. */
struct call {
	__u64 skb; /* 0: nothing */
	__u64 sk;
	__u64 request;
};

/* A namespace that was looked at, and what moved in it since this CPU last looked. */
struct moved {
	__u64 net; /* address of its struct net */
	__u64 id; /* of that, see net_id() */
	__u64 now[NUM_COUNTERS];
	__u64 delta[NUM_COUNTERS];
	__u32 bits; /* one for each counter that moved; 0 where one moved twice */
};

/* A SO_REUSEPORT group, or a socket that is in none. */
struct group {
	__u32 members; /* 0: no group */
	__u32 members_full;
	__u64 full; /* the last of those */
	__u64 drops; /* sk_drops of all, or of the only socket; with tracepoints alone */
};

/* A packet's headers, as they are on the wire. */
struct wire {
	__u64 start; /* address of its first byte */
	__u32 length; /* of what may be read there */
	__u8 ip[40];
	struct tcp_wire tcp;
};

/* What is known of a packet that is being freed. */
struct freed {
	__u64 met; /* the full socket that the kernel had found for it; 0: none, or not told */
	__u64 callers[2]; /* of netfilter; 0: not it, or not known */
	__u32 device; /* index of the one that it came in by */
	__u8 hook; /* enum netfilter_hook */
	__u8 icmp_type; /* of the error that answered it; 0: an RST, or nothing */
	__u8 icmp_code;
	bool answered; /* without a socket, just before */
	bool arrived; /* it is counted as arrived */
};

/* What became of the packet at hand, and how that is known. Who judges fills it in, and hands it
 * on. It is in memory and not on the stack: global functions take no pointers before 5.13. */
struct verdict {
	__u64 sk; /* its listener; 0: none, or not known */
	__u64 place; /* code address that freed it; 0: not told */
	__u32 reason; /* enum skb_drop_reason; 0: not told */
	__u8 outcome; /* enum outcome */
	__u8 proof; /* enum proof, of the outcome */
	__u8 listener_proof; /* enum listener_proof, of sk */
};

/* Whom an answer without a socket was sent to last. */
struct rejected {
	struct packet packet; /* family 0: nobody */
	__u8 icmp_type; /* 0: an RST */
	__u8 icmp_code;
};

/* Stacks that were taken of late: see note_callers(). */
struct stack_walks {
	__u64 since; /* ns */
	__u64 count;
	struct call_stack stack; /* the last one */
};

/* The listener that a packet's destination leads to, see find_and_count_arrival(). */
struct arrival_key {
	__u64 key; /* among the arrivals; 0: none */
	bool newcomer; /* made for this packet: nobody looked at the listener before */
};

struct attempt_counts {
	__u64 handshakes; /* distinct ones that lost a packet */
	__u64 forgotten; /* of them, those that made room for others: they may be counted again */
};

/* The listen path runs with bottom halves off, so one for each CPU is enough. With each part is who
 * writes it, and, where that is another, who reads it. */
struct cpu_state {
	__u64 offset; /* counters.h: of this CPU's per-CPU memory */
	__u64 gate; /* snapshot.h; 0: count nothing yet, or no more */
	__u64 scratch; /* as_number() */
	__u64 accept_scratch; /* accept.h: accept_number() */
	__u64 event; /* skb.h: seen_before() */
	__u64 freed_early; /* kfree_skb.h, for listen_path.h: freed before its function's exit */
	bool denied; /* listen_path.h, for classify.h: an LSM refused the packet in flight */
	struct call call; /* listen_path.h */
	struct moved moved; /* ledger.h, for classify.h, account.h, tracepoint.h */
	struct packet packet; /* packet.h, for all: the one at hand */
	struct wire wire; /* packet.h, for emit.h and reject.h: its headers */
	struct group group; /* listener.h, for account.h, emit.h, tracepoint.h */
	struct arrival_key arrival; /* tracepoint.h */
	__u32 slave; /* lookup.h: device of a VRF that the packet came in by; 0: none */
	struct verdict verdict; /* who judges a packet, for account.h and emit.h */
	struct freed freed; /* kfree_skb.h, for emit.h */
	struct mark mark; /* mark.h */
	struct half_open timer; /* reqsk_timer.h, for emit.h: whose timer runs on this CPU */
	/* reqsk_timer.h, for kfree_skb.h: dropped for its listener's end; its ACK is freed next */
	struct half_open dropped_request;
	struct rejected rejected; /* reject.h, for kfree_skb.h, which takes it */
	struct stack_walks stack_walks; /* kfree_skb.h */
	struct attempt_counts attempts; /* attempts.h, for Go */
	struct count new_count; /* account.h: what a new row of counts is made from */
	struct tally new_tally; /* ledger.h: likewise of tallies */
	struct namespace_counters namespaces[KNOWN_NAMESPACES]; /* ledger.h */
	struct arrival arrivals[KNOWN_ARRIVALS]; /* arrivals.h, for accept.h, tracepoint.h and Go */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpu_states SEC(".maps");

static __always_inline struct cpu_state *this_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cpu_states, &zero);
}

/* as_number makes a plain number of a pointer that the verifier has a type for:
 * what is read back from a map has none. */
static __always_inline __u64 as_number(struct cpu_state *cpu, const void *pointer)
{
	*(volatile __u64 *)&cpu->scratch = (__u64)pointer;
	return *(volatile __u64 *)&cpu->scratch;
}

/* plain makes a number of a pointer, like as_number(), where a softirq may come in between
 * and use the CPU's state. */
static __always_inline struct sock *plain(const struct sock *sk)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, 8, &sk);
	return (struct sock *)address;
}

#endif
