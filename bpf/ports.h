/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ports where anything listens, or did: what is connected there was accepted. */
#ifndef SYNSPY_PORTS_H
#define SYNSPY_PORTS_H

#include "config.h"
#include "ledger.h"

/* Where anything listens, or did: what is connected there was accepted. */
struct listening_key {
	__u64 net_id;
	__u32 port;
	__u32 pad;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* set by Go, where accepts are asked for */
	__type(key, struct listening_key);
	__type(value, __u8);
} listening SEC(".maps");

static __always_inline void note_listening(__u64 net, __u32 port)
{
	struct listening_key key = { .net_id = net_id(net), .port = port };
	__u8 yes = 1;

	if (have_accepts)
		bpf_map_update_elem(&listening, &key, &yes, BPF_ANY);
}

#endif
