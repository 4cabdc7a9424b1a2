/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel's reasons for dropping packets. */
#ifndef SYNSPY_DROP_REASON_H
#define SYNSPY_DROP_REASON_H

#include "kernel.h"

/* "net: skb: introduce kfree_skb_reason()" (c504e5c2f964, 5.17) */
const volatile bool have_reason = false;

/* kfree_skb_reason is what the tracepoint tells; 0: nothing. */
static __always_inline __u32 kfree_skb_reason(__u64 *ctx)
{
	return have_reason ? ctx[2] : 0;
}

#endif
