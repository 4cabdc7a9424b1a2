/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between the kernel side and Go: what crosses the maps. bpf2go
 * makes the Go types from here; tests hold the enums to internal/event.
 */
#ifndef SYNSPY_EVENT_H
#define SYNSPY_EVENT_H

#include "kernel.h"
#include "outcomes.h"

/* The closed list of listen-path counters, in internal/event/counter.go order. */
enum counter {
	COUNTER_LISTEN_OVERFLOWS,
	COUNTER_LISTEN_DROPS,
	COUNTER_REQ_Q_FULL_DROP,
	COUNTER_REQ_Q_FULL_DO_COOKIES,
	COUNTER_SYNCOOKIES_SENT,
	COUNTER_SYNCOOKIES_RECV,
	COUNTER_SYNCOOKIES_FAILED,
	COUNTER_DEFER_ACCEPT_DROP,
	COUNTER_FASTOPEN_LISTEN_OVERFLOW,
	COUNTER_EMBRYONIC_RSTS,
	NUM_COUNTERS,
};

/* What the function did at whose end counters are found moved. */
enum stage {
	STAGE_SYN,
	STAGE_ACK,
	STAGE_ICMP,
	NUM_STAGES,
};

/* What a packet died of that was freed for a reason, or, where none is told, by a function: enum
 * outcome, filled in from the table of internal/event/reason.go. */
struct reason_outcomes {
	__u8 syn; /* a SYN; OUTCOME_NONE: the reason does not say */
	__u8 ack; /* what else belongs to a handshake; OUTCOME_NONE: it is no loss */
};

/* How a cause is known, in internal/event/cause.go order. */
enum proof {
	PROOF_UNKNOWN,
	PROOF_SOCKET,
	PROOF_COUNTERS,
	PROOF_RETURN,
	PROOF_HELPER,
	PROOF_REASON,
	PROOF_STATE,
};

enum message_kind {
	MESSAGE_RECORD, /* struct record */
	MESSAGE_OPENED, /* struct listen_change: a socket began to listen */
	MESSAGE_CLOSED, /* struct listen_change: it stopped */
};

enum listener_proof {
	LISTENER_UNKNOWN,
	LISTENER_GIVEN, /* the kernel handed us this socket */
	LISTENER_CHOSEN, /* found by the kernel's own lookup, replayed */
	LISTENER_GROUP, /* some member of this SO_REUSEPORT group */
};

/* A listening socket, as it is at the moment of reading. */
struct listener {
	__u64 id; /* socket_id(): the key everywhere; 0: no listener */
	__u64 cookie; /* 0: none was ever made */
	__u64 inode; /* 0: unknown */
	__u64 cgroup; /* kernfs id of the v2 cgroup it was created in; 0: unknown */
	__u32 netns;
	__u32 accept_len;
	__u32 accept_limit;
	__u32 syn_len;
	__u32 syn_young;
	__u32 reuse_members; /* 0: no SO_REUSEPORT group */
	__u32 reuse_full;
	__u16 port;
	__u8 family; /* AF_INET or AF_INET6 */
	__u8 proof; /* enum listener_proof */
	__u8 addr[16];
	__u32 device; /* index of the one that it is bound to; 0: none */
	__u32 pad;
};

/* Where netfilter looks at an inbound packet, by how far it came. */
enum netfilter_hook {
	HOOK_UNKNOWN,
	HOOK_PREROUTING,
	HOOK_INPUT,
	HOOK_FORWARD,
};

/* One dropped packet, or one SYN answered by a cookie. */
struct record {
	__u8 kind; /* enum message_kind, first in every message */
	__u8 outcome;
	__u8 family; /* of the packet; 0: the packet is not known */
	__u8 proof; /* enum proof */
	__u32 attempt; /* 0: unknown */
	__u32 reason; /* enum skb_drop_reason of this kernel; 0: none was told */
	__u32 netns; /* where the packet died */
	__u64 place; /* code address that freed it; 0: not told */
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u16 client_port;
	__u16 server_port;
	__u32 isn; /* client's initial sequence number */
	__u32 device; /* index of the one it came in by, of deaths before a listener; 0: unknown */
	__u32 met_state; /* its state, TCP_*; 0: unknown */
	__u64 met_inode; /* of the connection that a SYN met; 0: no process has it, or unknown */
	__u64 callers[2]; /* code addresses that called netfilter, of its deaths; 0: not told */
	__u8 hook; /* enum netfilter_hook, of netfilter's deaths */
	__u8 icmp_type; /* of the ICMP error that answered the packet; 0: none did */
	__u8 icmp_code;
	__u8 unsent; /* 1: of a handshake whose SYN-ACK could not be sent again: no timer ran out */
	__u32 pad;
	__u8 client[16];
	__u8 server[16];
	struct listener listener;
};

#define MAX_CAPTURE 255

/* A record with the packet's bytes, from the IP header on. */
struct captured {
	struct record record;
	__u32 length;
	__u8 bytes[MAX_CAPTURE + 1];
};

struct listen_change {
	__u8 kind; /* enum message_kind */
	__u8 asked; /* 1: backlog is what listen() was called with */
	__u8 pad[2];
	__u32 pid; /* of the caller of listen() or close(): process context */
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u32 backlog;
	__u32 pad2;
	char comm[16];
	struct listener listener;
};

enum holder_kind {
	HOLDER_NAMESPACE, /* a process's network namespace */
	HOLDER_LISTENER, /* an open file of a process that is a listening TCP socket */
	HOLDER_CHILD, /* a process accepted a connection: only the listener's addr, port and family
		       * are set, and are the connection's own */
};

/* What the walk over every process's open files finds. */
struct holder {
	__u32 pid;
	__u32 kind; /* enum holder_kind */
	__u64 start; /* task start_boottime, ns */
	__u64 net; /* kernel address of its namespace */
	__u64 net_id; /* the key of its tally */
	char comm[16];
	struct listener listener;
};

/* Counts of one listener and outcome: exact at any rate. */
struct count_key {
	__u64 id; /* socket_id(); 0: the table is full, "other listeners" */
	__u32 outcome;
	__u32 pad;
};

struct count {
	struct count_key key; /* in count_places: whose it is; id 0: nobody's */
	__u64 delivered;
	__u64 suppressed;
	__u64 lost;
	__u64 again; /* of suppressed and lost: packets of handshakes that had lost one before */
	__u64 window; /* start of the rate limit's second, ns */
	__u64 used; /* records in it */
	struct listener listener; /* as it was at the first drop */
};

/* A namespace on one CPU. */
struct namespace_cpu {
	__u64 id; /* net_id(); 0: other namespaces, which the tables have no room for */
	__u64 cpu;
};

/* What the counters were there when the namespace's row was made; no row: all zero. */
struct base {
	__u64 counters[NUM_COUNTERS];
	__u64 unrouted[2]; /* IpOutNoRoutes and Ip6OutNoRoutes */
};

/* A network namespace's row: it is known since when its counters are followed. */
struct opening {
	struct base then; /* on all CPUs */
	__u64 net; /* kernel address */
	__u32 netns;
	__u8 named; /* it holds a listener that the filters ask for: it keeps its rows */
	__u8 unbased; /* no room for what its counters were: nothing can be measured */
	__u8 pad[2];
};

/* What was counted there. Only where something moved is there a row. */
struct tally {
	__u64 outcomes[NUM_OUTCOMES];
	__u64 unattributed[NUM_COUNTERS];
	__u64 gated[NUM_COUNTERS]; /* moved while the gate was closed */
	__u64 seen[NUM_COUNTERS]; /* the kernel's counters when a hook last looked */
	__u64 unrouted[2]; /* likewise */
	__u32 netns; /* 0: other namespaces */
	__u32 pad;
};

/* A namespace's tally on one CPU and the kernel's counters, read together. */
struct snapshot {
	struct base now; /* unrouted only with REQUEST_SUM */
	struct tally tally;
	__u32 stable; /* 1: nothing moved while reading */
	__u32 pad;
};

/* A listener's arrivals. */
struct arrivals {
	__u64 syn;
	__u64 ack;
	__u64 entered; /* connections that entered the accept queue */
	__u64 came_again; /* of these, those that had a SYN dropped before */
	__u32 reading; /* accept_reading, when the marks were last set */
	__u32 accept_max; /* connections in the accept queue */
	__u32 syn_max; /* half-open handshakes */
	__u32 pad;
};

#define NUM_WAITS 28

/* What a listener accepted. */
struct accepting {
	__u64 id; /* socket_id(); 0: other listeners, or a place that nobody has */
	__u64 accepts;
	__u64 waited; /* by those whose waiting time is known, in all, ns */
	__u64 last; /* accept, CLOCK_MONOTONIC, ns; 0: none yet */
	__u64 gap; /* the longest between two accepts, ns */
	__u64 waits[NUM_WAITS]; /* 0: under 1 us; n: under 2^n us; the last one has no end */
	__u64 answered_again; /* SYN-ACKs sent again */
	__u64 asked_again; /* SYNs that met their own half-open handshake */
	__u64 noted; /* the span and process of the last accept that acceptors were told of */
};

#define ACCEPT_SPANS 16
#define ACCEPT_SPAN_SHIFT 24 /* 16.8 ms */

/* A process that accepts from a listener, and when it first did in each of the last spans of
 * time that it did in. */
struct acceptor_key {
	__u64 id; /* socket_id() */
	__u32 pid;
	__u32 pad;
};
struct acceptor {
	__u64 start; /* task start_boottime, ns: numbers are used again */
	__u64 spans[ACCEPT_SPANS]; /* CLOCK_MONOTONIC, ns; 0: none */
};

/* What a snapshot run is asked for. */
enum request {
	REQUEST_LOCATE, /* learn this CPU's offset of per-CPU memory */
	REQUEST_GATE, /* open or close this CPU's gate */
	REQUEST_BASE, /* keep a namespace's counters on this CPU: movements are measured from it */
	REQUEST_SNAPSHOT, /* read a namespace on this CPU */
	REQUEST_OPEN, /* fill in a namespace's row, and its bases, from all CPUs */
	REQUEST_SUM, /* read a namespace's counters on all CPUs */
	REQUEST_ALIVE, /* is it still there? */
	REQUEST_LISTENER, /* read one listener as it is now */
};

/* What a run answers. */
enum answer {
	ANSWER_DONE,
	ANSWER_FAILED,
	ANSWER_GONE, /* the namespace, or the listener, is no more */
};

#define MAX_PORT_RANGES 32
#define MAX_PREFIXES 16

struct port_range {
	__u16 low;
	__u16 high;
};

struct prefix {
	__u8 addr[16]; /* IPv4 as v4-mapped */
	__u8 mask[16];
};

#define MAX_MAPPED 16

/* Where a rule of a host sends what is for the ports and addresses asked about. */
struct mapped {
	__u8 addr[16]; /* IPv4 as v4-mapped; all zero: any */
	__u32 netns; /* 0: any */
	__u16 port;
	__u16 pad;
};

/* What the user asked to see; everything else is counted as filtered. */
struct filter {
	__u64 outcomes; /* bit per outcome to keep */
	__u32 netns; /* 0: all; the only one that narrows the ledger */
	__u32 ports; /* used entries */
	__u32 servers;
	__u32 clients;
	__u32 by_owner; /* 1: only listeners in the map of wanted ones */
	__u32 maps;
	struct port_range port[MAX_PORT_RANGES];
	struct prefix server[MAX_PREFIXES];
	struct prefix client[MAX_PREFIXES];
	struct mapped mapped[MAX_MAPPED];
};

#endif
