/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What Go sets before loading, so that what is off costs nothing: the verifier removes it.
 */
#ifndef SYNSPY_CONFIG_H
#define SYNSPY_CONFIG_H

#include "kernel.h"
#include "code.h"
#include "event.h"

const volatile struct filter filter = {};
const volatile __u64 emit_outcomes = 0; /* bit per outcome that makes a record */
const volatile __u32 mib_index[NUM_COUNTERS] = {};
const volatile __u32 rate = 100; /* records per second, listener and outcome; 0: all */
/* As many rows as there may be before namespaces get none that no filter names. */
const volatile __u32 openings_room = 128, tallies_room = 128;
const volatile __u32 wakeup_bytes = 65536; /* wake the reader when so much waits */
const volatile bool capture = false; /* records carry their packets' bytes */
const volatile bool have_listen_path = false; /* the listen path's functions are hooked */
const volatile bool have_dropped_requests =
	false; /* a handshake dropped for its closed listener is seen */
const volatile __u32 out_no_routes = 0; /* IPSTATS_MIB_OUTNOROUTES */
const volatile __u32 migrated_index = 0; /* LINUX_MIB_TCPMIGRATEREQSUCCESS; 0: none (5.14) */
const volatile bool have_accepts = false; /* the accept side is asked for */
const volatile __u64 reqsk_timer = 0; /* address of reqsk_timer_handler */

/* The outcomes that counters alone tell, by enum stage and a bit for each that moved: the table of
 * internal/event/outcome.go. */
#define MOVEMENTS (1 << NUM_COUNTERS)
const volatile __u8 outcomes_of[4 * MOVEMENTS] = {}; /* of a size that a mask can be made from */

#define MAX_REASONS 256
const volatile struct reason_outcomes reason_outcomes[MAX_REASONS] = {}; /* by drop reason */

/* Code ranges of the functions whose frees settle a packet; 0: unknown. */
#define MAX_RANGES 16
const volatile struct code_range rcv_ranges[MAX_RANGES] = {}; /* tcp_v4_rcv and others */
const volatile struct code_range state_ranges[4] = {}; /* tcp_rcv_state_process */
const volatile struct code_range cookie_ranges[8] = {}; /* cookie_v4_check, cookie_v6_check */
const volatile struct code_range kfree_ranges[4] = {}; /* kfree_skb: a split one tells no place */
const volatile struct code_range icmp_ranges[4] = {}; /* icmp_rcv, icmpv6_rcv */

/* Where no reason is told, functions whose frees tell as much. */
#define MAX_PLACES 16
struct place {
	__u64 start;
	__u64 size;
	struct reason_outcomes outcomes;
	__u8 pad[6];
};
const volatile struct place places[MAX_PLACES] = {};

#endif
