/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who called netfilter, which says at which hook a packet was. */
#ifndef SYNSPY_HOOK_CALLERS_H
#define SYNSPY_HOOK_CALLERS_H

#include "code.h"
#include "kernel.h"

#define MAX_HOOK_RANGES 4
const volatile struct code_range hook_ranges[MAX_HOOK_RANGES] = {}; /* nf_hook_slow */

#define MAX_FRAMES 24
struct call_stack {
	__u64 frames[MAX_FRAMES];
};

/* find_hook_callers leaves the two callers of nf_hook_slow, and nothing where it is not on the
 * stack, which is taken into memory of the caller's. */
static __always_inline void find_hook_callers(void *ctx, struct call_stack *stack, __u64 *callers)
{
	long length = bpf_get_stack(ctx, stack->frames, sizeof(stack->frames), 0);

	for (int i = 0; i < MAX_FRAMES - 2; i++) {
		if ((i + 2) * 8 >= length)
			return;
		if (in_code(hook_ranges, MAX_HOOK_RANGES, stack->frames[i])) {
			callers[0] = stack->frames[i + 1];
			callers[1] = stack->frames[i + 2];
			return;
		}
	}
}

#endif
