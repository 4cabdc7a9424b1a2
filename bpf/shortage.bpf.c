// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * accept() calls of a few processes that return no connection for want of something: a descriptor,
 * a file, memory. An object of its own, which is attached only while connections are left in a full
 * queue: where the function cannot be hooked, the exit of every system call is, and every process
 * pays for that.
 */
#include "arch.h"
#include "kernel.h"
#include "row.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ENOMEM 12
#define ENFILE 23
#define EMFILE 24
#define ENOBUFS 105

#define NO_FD (-1)

struct shortage {
	__u32 tgid;
	__s32 fd; /* of the listener; NO_FD: not known */
	__u32 error;
};

__u64 overflowed = 0; /* calls that the table had no room for */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} callers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct shortage);
	__type(value, __u64);
} shortages SEC(".maps");

static __always_inline bool is_shortage(__s64 returned)
{
	return returned == -EMFILE || returned == -ENFILE || returned == -ENOBUFS ||
	       returned == -ENOMEM;
}

static __always_inline int note(__s32 fd, __s64 returned)
{
	struct shortage key = { .tgid = bpf_get_current_pid_tgid() >> 32,
				.fd = fd,
				.error = -returned };
	__u64 none = 0, *count;

	if (!bpf_map_lookup_elem(&callers, &key.tgid))
		return 0;
	count = find_or_add(&shortages, &key, &none);
	__sync_fetch_and_add(count ? count : &overflowed, 1);
	return 0;
}

SEC("fexit/__sys_accept4")
int fexit_sys_accept4(__u64 *ctx)
{
	__s32 returned = ctx[4]; /* an int, after four arguments */

	return is_shortage(returned) ? note(ctx[0], returned) : 0;
}

SEC("kretprobe/__sys_accept4")
int kretprobe_sys_accept4(struct pt_regs *ctx)
{
	__s32 returned = RETURNED(ctx);

	return is_shortage(returned) ? note(NO_FD, returned) : 0;
}

/* Nearly every call is told from accept() by what it returned. Calls of 32-bit programs have other
 * numbers. */
SEC("tp_btf/sys_exit")
int tp_btf_sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	__s64 returned = ctx[1];
	__u64 call;

	if (!is_shortage(returned))
		return 0;
	call = SYSCALL(regs);
	return call == NR_ACCEPT || call == NR_ACCEPT4 ? note(SYSCALL_PARM1(regs), returned) : 0;
}
