/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * This CPU's copy of a namespace's counters. net->mib.net_statistics is a
 * per-CPU pointer; adding this CPU's offset gives the address, and the offset
 * comes without any symbol from a per-CPU map's own bookkeeping.
 */
#ifndef SYNSPY_COUNTERS_H
#define SYNSPY_COUNTERS_H

#include "compat.h"
#include "cpu_state.h"
#include "maps.h"
#include "packet.h"

/* At least one sign moves whenever any counter does: ListenOverflows and
 * TCPReqQFullDrop never move without ListenDrops, a cookie sent not without its
 * TCPReqQFullDoCookies. A SYN moves only the first three. */
#define SYN_SIGNS                                                         \
	(1 << COUNTER_LISTEN_DROPS | 1 << COUNTER_REQ_Q_FULL_DO_COOKIES | \
	 1 << COUNTER_FASTOPEN_LISTEN_OVERFLOW)
#define ALL_SIGNS                                                                    \
	(SYN_SIGNS | 1 << COUNTER_SYNCOOKIES_RECV | 1 << COUNTER_SYNCOOKIES_FAILED | \
	 1 << COUNTER_DEFER_ACCEPT_DROP | 1 << COUNTER_EMBRYONIC_RSTS)
#define ACK_SIGNS                                                          \
	(1 << COUNTER_LISTEN_DROPS | 1 << COUNTER_SYNCOOKIES_RECV |        \
	 1 << COUNTER_SYNCOOKIES_FAILED | 1 << COUNTER_DEFER_ACCEPT_DROP | \
	 1 << COUNTER_EMBRYONIC_RSTS)
#define ALL_COUNTERS ((1 << NUM_COUNTERS) - 1)
/* Those that a SYN can move, and an ACK. */
#define SYN_COUNTERS                                                                \
	(SYN_SIGNS | 1 << COUNTER_LISTEN_OVERFLOWS | 1 << COUNTER_REQ_Q_FULL_DROP | \
	 1 << COUNTER_SYNCOOKIES_SENT)
#define ACK_COUNTERS (ACK_SIGNS | 1 << COUNTER_LISTEN_OVERFLOWS)

/* READ_NEIGHBOURS reads counters that are neighbours in the kernel: n from the first on,
 * to the places in to, of those that are wanted. Go makes sure that they are. */
#define READ_NEIGHBOURS(typed, to, which, n, ...)                                         \
	do {                                                                              \
		const int places[] = { __VA_ARGS__ };                                     \
		__u64 *from = typed + mib_index[places[0]] * 8;                           \
                                                                                          \
		_Pragma("unroll") for (int i = 0; i < n; i++) if (which & 1 << places[i]) \
			to[places[i]] = from[i];                                          \
	} while (0)

/* read_cast reads those of one stage. From 6.2 on a cast lets the verifier turn each into a
 * plain load; tracing programs only (see have_rdonly_cast). */
static __always_inline void read_cast(__u64 mib, __u64 *to, __u32 which)
{
	void *typed = bpf_rdonly_cast((void *)mib, bpf_core_type_id_kernel(struct linux_mib));

	if (which & (1 << COUNTER_LISTEN_OVERFLOWS | 1 << COUNTER_LISTEN_DROPS))
		READ_NEIGHBOURS(typed, to, which, 2, COUNTER_LISTEN_OVERFLOWS,
				COUNTER_LISTEN_DROPS);
	if (which & (1 << COUNTER_REQ_Q_FULL_DO_COOKIES | 1 << COUNTER_REQ_Q_FULL_DROP))
		READ_NEIGHBOURS(typed, to, which, 2, COUNTER_REQ_Q_FULL_DO_COOKIES,
				COUNTER_REQ_Q_FULL_DROP);
	READ_NEIGHBOURS(typed, to, which, 4, COUNTER_SYNCOOKIES_SENT, COUNTER_SYNCOOKIES_RECV,
			COUNTER_SYNCOOKIES_FAILED, COUNTER_EMBRYONIC_RSTS);
	if (which & 1 << COUNTER_DEFER_ACCEPT_DROP)
		READ_NEIGHBOURS(typed, to, which, 1, COUNTER_DEFER_ACCEPT_DROP);
	if (which & 1 << COUNTER_FASTOPEN_LISTEN_OVERFLOW)
		READ_NEIGHBOURS(typed, to, which, 1, COUNTER_FASTOPEN_LISTEN_OVERFLOW);
}

/* read_counters is the same wherever it is called. */
static __always_inline void read_counters(__u64 mib, __u64 *to, __u32 which, bool cast)
{
	if (cast && have_rdonly_cast) {
		read_cast(mib, to, which);
		return;
	}
#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		if (which & 1 << i)
			bpf_probe_read_kernel(&to[i], 8, (void *)(mib + mib_index[i] * 8));
}

static __always_inline __u64 sum_of(const __u64 *counters, __u32 which)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < NUM_COUNTERS; i++)
		if (which & 1 << i)
			sum += counters[i];
	return sum;
}

/* sum_signs adds those of which one moves whenever any counter does: in registers, where it can. */
static __always_inline __u64 sum_signs(struct cpu_state *cpu, __u64 mib, __u32 signs)
{
	__u64 read[NUM_COUNTERS];

	if (have_rdonly_cast) {
		read_cast(mib, read, signs);
		return sum_of(read, signs);
	}
	read_counters(mib, cpu->moved.now, signs, false);
	return sum_of(cpu->moved.now, signs);
}

/* locate learns this CPU's per-CPU offset: where the map's value is for this CPU, less
 * the raw per-CPU pointer that the kernel keeps in the map's struct bpf_array. */
static __always_inline long locate(struct cpu_state *cpu)
{
	void *map = &cpu_states, *here = cpu;
	__u64 map_address = 0, state_address = 0, raw = 0;
	__u32 index = bpf_get_smp_processor_id();

	/* By way of the stack, pointers become numbers. */
	bpf_probe_read_kernel(&map_address, 8, &map);
	bpf_probe_read_kernel(&state_address, 8, &here);
	if (bpf_probe_read_kernel(&raw, 8,
				  (void *)(map_address +
					   bpf_core_field_offset(struct bpf_array, pptrs))))
		return -1;
	cpu->offset = state_address - raw;
	return bpf_map_update_elem(&offsets, &index, &cpu->offset, BPF_ANY);
}

#endif
