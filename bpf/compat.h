/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Shapes of kernel types in other versions than kernel.h's. Each says what
 * changed and when. Which one is read is decided from BTF at load time.
 */
#ifndef SYNSPY_COMPAT_H
#define SYNSPY_COMPAT_H

#include "kernel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Before "net: inet: Retire port only listening_hash" (5.19) the listeners of a
 * lhash2 bucket hung together by an hlist of their own. */
struct inet_listen_hashbucket___hlist {
	struct hlist_head head;
};
struct inet_connection_sock___hlist {
	struct hlist_node icsk_listen_portaddr_node;
};

/* Before "bpf, cgroups: Fix cgroup v2 fallback on v1/v2 mixed mode" (5.15) the
 * cgroup shared a word with the v1 classid, its low bit telling which it was. */
struct sock_cgroup_data___val {
	u64 val;
};

/* The reference count of a namespace moved from struct net into ns_common in
 * 5.11 and was renamed there in 6.18. */
typedef struct {
	atomic_t refs;
} refcount_t;
struct net___count {
	refcount_t count;
};
struct ns_common___count {
	refcount_t count;
};
struct ns_common___ref {
	refcount_t __ns_ref;
};

#pragma clang attribute pop

#endif
