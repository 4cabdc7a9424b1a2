/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The sampler's types and maps. All of them are bounded; what they have no room for is counted.
 */
#ifndef SYNSPY_SAMPLER_H
#define SYNSPY_SAMPLER_H

#include "kernel.h"

#define BPF_MAP_TYPE_STACK_TRACE 7
#define BPF_F_USER_STACK (1ULL << 8)
#define EEXIST 17

/* include/linux/sched.h; the first four never changed. */
#define TASK_INTERRUPTIBLE 0x01
#define TASK_UNINTERRUPTIBLE 0x02
#define TASK_STOPPED 0x04
#define TASK_TRACED 0x08
#define TASK_ENDED 0xb0 /* EXIT_DEAD, EXIT_ZOMBIE, TASK_DEAD */

#define MAX_FRAMES 127
#define SAMPLER_PROCESSES 1024
#define SAMPLER_THREADS 16384
#define SAMPLER_ACTIVITIES 16384
#define SAMPLER_STACKS 8192

enum thread_state {
	THREAD_UNKNOWN,
	THREAD_RUNNING, /* seen on a CPU */
	THREAD_RUNNABLE, /* preempted, or gave way */
	THREAD_SLEEPING, /* until something happens or a signal comes */
	THREAD_UNINTERRUPTIBLE, /* mostly storage and locks */
	THREAD_STOPPED, /* by a signal or a debugger */
};

/* What a stack's number is where it is none. */
enum no_stack {
	STACK_NONE = -1, /* there is none, or it could not be read */
	STACK_LOST = -2, /* another one had its place */
	STACK_BEFORE = -3, /* it left before it was watched: see iter_task */
};

struct activity {
	__u32 tgid;
	__u32 tid;
	enum no_stack user; /* or a place in stacks */
	enum no_stack kernel;
	enum thread_state state;
};

struct activity_total {
	__u64 times; /* samples, or returns to a CPU */
	__u64 ns; /* off it */
	__u64 delay; /* of which it waited for a CPU, ns */
	__u64 longest; /* ns */
	char comm[16];
};

/* A thread that leaves CPUs. */
struct thread {
	__u64 left; /* CLOCK_MONOTONIC, ns; 0: it is on one */
	__u64 delayed; /* sched_info.run_delay when it left */
	struct activity activity;
	__u32 pad;
	char comm[16];
};

struct sleeper {
	__u32 tgid;
	__u32 tid;
	__u64 left;
	__u64 ip; /* of user space; 0: not known */
	__u64 sp;
	__u64 bp;
	__u64 kernel_length;
	__u64 kernel[MAX_FRAMES];
};

const volatile bool have_prev_state = false; /* sched_switch tells it: 5.18 */
const volatile bool have_task_pt_regs = false; /* the helper: 5.15 */

__u64 collisions = 0; /* stacks whose bucket another one had */
__u64 lost = 0; /* samples and absences that no table had room for */
struct sleeper asleep = {}; /* too big for a stack; one reader at a time */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SAMPLER_PROCESSES);
	__type(key, __u32);
	__type(value, __u32);
} watched SEC(".maps");

/* A bit for each number of a process, less its upper bits. Most of those that are not watched are
 * told so by one load: measured on 6.18, half the time of asking the hash for both threads. */
#define WATCHED_WORDS 1024
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WATCHED_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} watched_bits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SAMPLER_THREADS);
	__type(key, __u32);
	__type(value, struct thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SAMPLER_ACTIVITIES);
	__type(key, struct activity);
	__type(value, struct activity_total);
} activities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, SAMPLER_STACKS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, MAX_FRAMES * sizeof(__u64)); /* Go lowers it to the sysctl's */
} stacks SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sched_info___sampler {
	unsigned long long run_delay; /* not with every configuration */
};

struct task_struct___sampler {
	unsigned int __state;
	int pid;
	int tgid;
	char comm[16];
	struct sched_info___sampler sched_info;
};

/* Before "sched: Change task_struct::state" (5.14). */
struct task_struct___state {
	volatile long state;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs___user {
	unsigned long bp;
	unsigned long ip;
	unsigned long sp;
};
#endif

#pragma clang attribute pop

/* read_user_registers takes from a sleeping thread what walking its user stack needs. */
static __always_inline void read_user_registers(void *regs)
{
#if defined(__TARGET_ARCH_x86)
	struct pt_regs___user *user = regs;

	asleep.ip = BPF_CORE_READ(user, ip);
	asleep.sp = BPF_CORE_READ(user, sp);
	asleep.bp = BPF_CORE_READ(user, bp);
#elif defined(__TARGET_ARCH_arm64)
	/* struct user_pt_regs, which is uapi: x0 to x30, sp, pc. */
	bpf_probe_read_kernel(&asleep.bp, 8, regs + 29 * 8);
	bpf_probe_read_kernel(&asleep.sp, 8, regs + 31 * 8);
	bpf_probe_read_kernel(&asleep.ip, 8, regs + 32 * 8);
#endif
}

#endif
