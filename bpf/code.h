/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ranges of the kernel's code, which Go looks up: who frees a packet is told by its address. */
#ifndef SYNSPY_CODE_H
#define SYNSPY_CODE_H

#include "kernel.h"

/* A function, or a part of one. */
struct code_range {
	__u64 start;
	__u64 size; /* 0: there is none */
};

/* in_code reports whether an address is in one of n ranges. */
static __always_inline bool in_code(const volatile struct code_range *ranges, int n, __u64 address)
{
#pragma unroll
	for (int i = 0; i < n; i++) {
		if (!ranges[i].size) /* known when the program is verified: the rest is left out */
			break;
		if (address - ranges[i].start < ranges[i].size)
			return true;
	}
	return false;
}

#endif
