/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is learned while running, and the maps that more than one header uses. Sizes here are for
 * small hosts; Go raises those that depend on the number of listeners and namespaces.
 */
#ifndef SYNSPY_MAPS_H
#define SYNSPY_MAPS_H

#include "config.h"
#include "cpu_state.h"
#include "event.h"
#include "kernel.h"

#define ATTEMPT_WAYS 4
#define ATTEMPT_SETS 16384

/* Learned while running. */
__u64 last_namespace = 0; /* of the process whose files were listed last */
__u32 listen_generation = 0;
__u64 untracked = 0; /* packets, and movements, of namespaces that no table had room for */
/* Rows that the kernel side made, and those that Go did, less what it took out again. */
__u64 openings_made = 0, openings_held = 0;
__u64 tallies_made = 0, tallies_held = 0;
__u64 counts_made = 0, counts_held = 0;
__u64 arrived_made = 0, arrived_held = 0;
__u64 moves_begun = 0, moves_ended = 0; /* of counts from a CPU's state to the table of arrivals */
__u64 acceptings_made = 0, acceptings_held = 0;
__u64 changes_lost = 0; /* openings and closings of listeners that the ring had no room for */
/* Tasks put among the sleepers, less those that Go took out again, and those taken out here. */
__u64 sleepers_put = 0, sleepers_taken = 0;
__u32 accept_reading = 0; /* counts readings of the accept side: marks begin anew after each */
__u32 device_bound = 0; /* 1: some listener is bound to a device */
__u32 steering = 0; /* 1: some listener was given packets for elsewhere, see steered.h */
__u32 answers_watched = 0; /* 1: what is sent is looked at, see answer_sent(); set by Go */
/* SYNs that netfilter, or something before any listener, dropped while it was not. */
__u64 unwatched_rules = 0, unwatched_others = 0;
__u64 syn_lost = 0; /* about when some handshake last had a SYN dropped, jiffies; 0: never */
__u64 uncounted = 0; /* packets that no row of counts had room for: never, see count_of */
__u64 unlisted_drops = 0; /* packets of listeners without a row in counts */
__u64 unlisted_syns = 0; /* SYNs to listeners without one in arrived */

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
	__type(key, struct namespace_cpu);
	__type(value, struct base);
} bases SEC(".maps");

/* Where anything moved since, or died. A row of its own for each CPU: what moved on one must be
 * told from what moved on others, and of many namespaces few are busy on many. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct namespace_cpu);
	__type(value, struct tally);
} tallies SEC(".maps");

/* Of the outcomes in tallies, those that filters kept out. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct count_key); /* id: net_id(); 0: other namespaces */
	__type(value, __u64);
} filtered SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct count_key);
	__type(value, struct count);
} counts SEC(".maps");

/* The same by where a key hashes to, without a search: of those that came first. A place is free
 * again once Go has taken its row. */
#define COUNT_PLACES 64
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNT_PLACES);
	__type(key, __u32);
	__type(value, struct count);
} count_places SEC(".maps");

/* Who takes a place makes a row here first: one alone can. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, COUNT_PLACES);
	__type(key, __u32); /* place */
	__type(value, struct count_key);
} count_owners SEC(".maps");

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
} listeners_read SEC(".maps");

#endif
