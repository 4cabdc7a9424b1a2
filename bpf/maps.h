/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is set at load time, and the maps. Sizes here are for small hosts; Go
 * raises those that depend on the number of listeners and namespaces.
 */
#ifndef SYNSPY_MAPS_H
#define SYNSPY_MAPS_H

#include "kernel.h"
#include "event.h"

#define KNOWN_NAMESPACES 32
#define KNOWN_ARRIVALS 32
#define ATTEMPT_WAYS 4
#define ATTEMPT_SETS 16384

/* Set before loading, so that what is off costs nothing: the verifier removes it. */
const volatile struct filter filter = {};
const volatile __u64 emit_outcomes = 0; /* bit per outcome that makes a record */
const volatile __u32 mib_index[NUM_COUNTERS] = {};
const volatile __u32 rate = 100; /* records per second, listener and outcome; 0: all */
/* As many rows as there may be before namespaces get none that no filter names. */
const volatile __u32 openings_room = 128, tallies_room = 128;
const volatile __u32 wakeup_bytes = 65536; /* wake the reader when so much waits */
const volatile bool have_rdonly_cast = false;
const volatile bool have_consume_location = false; /* 6.5 */
const volatile bool have_sock_from_file = false; /* 5.11 */
const volatile bool capture = false; /* records carry their packets' bytes */
const volatile bool have_socket_cookie = false; /* for tracing programs: 5.12 */
const volatile bool have_loop = false; /* bpf_loop: 5.17 */
const volatile bool have_task_pt_regs = false; /* bpf_task_pt_regs: 5.15 */
const volatile bool have_coarse = false; /* bpf_ktime_get_coarse_ns: 5.11 */
const volatile bool have_rx_sk = false; /* kfree_skb tells the socket: 6.11 */
const volatile bool have_reason = false; /* and why: 5.17 */
const volatile bool have_path = false; /* the listen path's functions are hooked */
const volatile bool have_gone = false; /* a handshake dropped for its closed listener is seen */
const volatile __u32 out_no_routes = 0; /* IPSTATS_MIB_OUTNOROUTES */
const volatile __u32 migrated = 0; /* LINUX_MIB_TCPMIGRATEREQSUCCESS; 0: none (5.14) */
const volatile __u32 check_req_args = 0; /* where fexit has the return value */
const volatile __u32 timewait_args = 0;
const volatile __u32 accept_args = 0;
const volatile __u32 listen_args = 0;
const volatile bool have_accepts = false; /* the accept side is asked for */
const volatile __u64 reqsk_timer = 0; /* address of reqsk_timer_handler */
#define MAX_REASONS 256
const volatile __u8 fates[MAX_REASONS] = {}; /* enum fate of a drop reason */

/* Code ranges of the functions whose frees settle a packet; 0: unknown. */
#define MAX_RANGES 16
struct range {
	__u64 start;
	__u64 size;
};
const volatile struct range rcv_ranges[MAX_RANGES] = {}; /* tcp_v4_rcv and others */
const volatile struct range state_ranges[4] = {}; /* tcp_rcv_state_process */
const volatile struct range cookie_ranges[8] = {}; /* cookie_v4_check, cookie_v6_check */
const volatile struct range kfree_ranges[4] = {}; /* kfree_skb: a split one tells no place */
const volatile struct range icmp_ranges[4] = {}; /* icmp_rcv, icmpv6_rcv */

/* Where no reason is told, functions whose frees tell as much. */
#define MAX_PLACES 16
struct place {
	__u64 start;
	__u64 size;
	__u64 fate;
};
const volatile struct place places[MAX_PLACES] = {};
const volatile struct range hook_ranges[4] = {}; /* nf_hook_slow: who calls it is the hook */

/* Learned while running. */
__u64 socket_operations = 0; /* struct file_operations of sockets */
__u32 own_socket = 0; /* a descriptor of the reader's that is a socket; set by Go */
__u64 hashinfo = 0; /* struct inet_hashinfo of TCP, where no namespace has it */
__u64 last_namespace = 0; /* of the process whose files were listed last */
__u32 listen_generation = 0;
__u64 untracked = 0; /* packets, and movements, of namespaces that no table had room for */
/* Rows that the kernel side made, and those that Go did, less what it took out again. */
__u64 openings_made = 0, openings_held = 0;
__u64 tallies_made = 0, tallies_held = 0;
__u64 counts_made = 0, counts_held = 0;
__u64 arrived_made = 0, arrived_held = 0;
__u64 moves_begun = 0, moves_ended = 0; /* of counts from a CPU's slot to the table of arrivals */
__u64 acceptings_made = 0, acceptings_held = 0;
__u64 changes_lost = 0; /* openings and closings of listeners that the ring had no room for */
/* Tasks put among the sleepers, less those that Go took out again, and those taken out here. */
__u64 sleepers_put = 0, sleepers_taken = 0;
__u32 accept_reading = 0; /* counts readings of the accept side: marks begin anew after each */
__u32 device_bound = 0; /* 1: some listener is bound to a device */
__u32 steering = 0; /* 1: some listener was given packets for elsewhere, see steered.h */
__u32 answers_watched = 0; /* 1: what is sent is looked at, see rejected(); set by Go */
/* SYNs that netfilter, or something before any listener, dropped while it was not. */
__u64 unwatched_rules = 0, unwatched_others = 0;
__u64 syn_lost = 0; /* about when some handshake last had a SYN dropped, jiffies; 0: never */
__u64 uncounted = 0; /* packets that no row of counts had room for: never, see count_of */
__u64 unlisted_drops = 0; /* packets of listeners without a row in counts */
__u64 unlisted_syns = 0; /* SYNs to listeners without one in arrived */

#define MAX_STACK 24

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
	SIGNS_ANY,
	NUM_SIGNS,
};

/* A namespace whose counters this CPU looks at. */
struct known {
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
	__u64 drops; /* by survey(), when last looked at; with tracepoints alone */
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

/* One CPU's state. The listen path runs with bottom halves off, so one is enough. */
struct slot {
	__u64 offset; /* of this CPU's per-CPU memory */
	__u64 gate; /* 0: count nothing yet, or no more */
	__u64 skb; /* what an entry hook left for its exit; 0: nothing */
	__u64 request; /* likewise */
	__u64 net; /* address of its struct net */
	__u64 id; /* of that, see net_id() */
	__u64 sk;
	__u64 event; /* see seen_before() */
	__u64 number; /* see number() */
	__u64 found; /* by search() */
	__u64 freed; /* a packet in slot->packet that was freed before its function's exit */
	__u64 given; /* listener of the packet at hand, from the kernel; 0: not told */
	__u64 place; /* of the record at hand: where it was freed, why, how that is known */
	__u32 reason;
	__u8 proof;
	__u8 checking; /* the function has a request: tcp_check_req */
	__u8 died; /* the function returned no socket */
	__u8 denied; /* an LSM refused the packet in flight */
	__u64 full; /* by survey(): with members, members_full and drops */
	__u32 members;
	__u32 members_full;
	__u64 drops; /* sk_drops of all members, or of the only socket; with tracepoints alone */
	__u64 arrival; /* key of the packet at hand among the arrivals; 0: none */
	__u32 slave; /* index of the device of a VRF that it came in by; 0: none */
	bool newcomer; /* its arrival was made for it: nobody looked at the listener before */
	__u64 accepting; /* see accept_number() */
	__u64 handshakes; /* distinct ones that lost a packet */
	__u64 forgotten; /* of them, those that made room for others: they may be counted again */
	__u64 now[NUM_COUNTERS];
	__u64 delta[NUM_COUNTERS];
	__u64 start; /* address of the packet's first byte */
	__u32 length; /* of what may be read there */
	__u8 ip[40]; /* headers as they are on the wire */
	struct tcp_wire tcp;
	struct packet packet;
	struct mark mark;
	struct half_open timer;
	struct half_open orphan;
	__u8 hook; /* enum netfilter_hook */
	__u8 icmp_type; /* of the error that answered the packet at hand; 0: an RST, or nothing */
	__u8 icmp_code;
	bool answered; /* it was answered without a socket, just before */
	__u32 device; /* index of the one that the packet at hand came in by */
	__u64 met; /* the full socket that the kernel had found for it; 0: none, or not told */
	bool arrived; /* the packet at hand is counted as arrived */
	bool unsent; /* see struct record */
	__u64 walked; /* since when note_callers() counts how often it looked, ns */
	__u64 walks;
	__u64 callers[2]; /* of netfilter, for the packet at hand */
	__u64 stack[MAX_STACK];
	struct {
		struct packet packet; /* whom an answer without a socket was sent to last */
		__u8 icmp_type;
		__u8 icmp_code;
	} rejected;
	struct count fresh; /* what a new row of counts is made from */
	struct tally blank; /* likewise of tallies */
	struct known known[KNOWN_NAMESPACES];
	struct arrival arrivals[KNOWN_ARRIVALS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* Per-CPU offsets by CPU number, for reading another CPU's counters. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* CPUs; set by Go */
	__type(key, __u32);
	__type(value, __u64);
} offsets SEC(".maps");

/* Every namespace that is followed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u64); /* net_id() */
	__type(value, struct opening);
} openings SEC(".maps");

/* Where its counters were not zero then. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct place_key);
	__type(value, struct base);
} bases SEC(".maps");

/* Where anything moved since, or died. A row of its own for each CPU: what moved on one must be
 * told from what moved on others, and of many namespaces few are busy on many. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct place_key);
	__type(value, struct tally);
} tallies SEC(".maps");

/* Of the outcomes in tallies, those that filters kept out. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct count_key); /* id: net_id(); 0: other namespaces */
	__type(value, __u64);
} withheld SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct count_key);
	__type(value, struct count);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* socket_id() */
	__type(value, struct arrivals);
} arrived SEC(".maps");

/* Listeners that end, by the task that ends them: what it resets next was queued. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); /* pid_tgid */
	__type(value, __u64); /* struct sock */
} closing SEC(".maps");

/* Listeners judged by --pid, --comm, --cgroup and the like: 1 wanted, 0 not. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* socket_id() */
	__type(value, __u32);
} wanted SEC(".maps");

#define SYN_LOST (1U << 31) /* in an attempt's count: a SYN was among them */
struct attempt {
	__u64 print;
	__u32 isn;
	__u32 count;
};
struct attempt_set {
	struct attempt way[ATTEMPT_WAYS];
	__u64 evicted; /* when one was last thrown out, ns; 0: never */
	__u64 hand;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ATTEMPT_SETS);
	__type(key, __u32);
	__type(value, struct attempt_set);
} attempts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ring SEC(".maps");

/* Where the snapshot program leaves what it read; one reader at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct snapshot);
} snapshots SEC(".maps");

/* The same for one listener. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct listener);
} looks SEC(".maps");

static __always_inline struct slot *this_slot(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&slots, &zero);
}

/* number makes a plain number of a pointer that the verifier has a type for:
 * what is read back from a map has none. */
static __always_inline __u64 number(struct slot *slot, const void *pointer)
{
	*(volatile __u64 *)&slot->number = (__u64)pointer;
	return *(volatile __u64 *)&slot->number;
}

/* plain makes a number of a pointer, like number(), where a softirq may come in between
 * and use the slot. */
static __always_inline struct sock *plain(const struct sock *sk)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, 8, &sk);
	return (struct sock *)address;
}

#endif
