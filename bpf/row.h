/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Rows of hash tables. */
#ifndef SYNSPY_ROW_H
#define SYNSPY_ROW_H

#include "kernel.h"

/* find_or_add returns a row, which it makes of fresh where there is none; NULL: there is no room. */
static __always_inline void *find_or_add(void *table, const void *key, const void *fresh)
{
	void *row = bpf_map_lookup_elem(table, key);

	if (row)
		return row;
	bpf_map_update_elem(table, key, fresh, BPF_NOEXIST); /* or another CPU has just made it */
	return bpf_map_lookup_elem(table, key);
}

#endif
