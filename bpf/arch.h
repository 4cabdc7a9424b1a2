/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What differs between machines: a task's registers, where a function has its arguments and what it
 * returned, and the numbers of system calls.
 */
#ifndef SYNSPY_ARCH_H
#define SYNSPY_ARCH_H

#include "kernel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long ax;
	unsigned long orig_ax;
};
#define PARM1(regs) ((regs)->di)
#define PARM2(regs) ((regs)->si)
#define PARM3(regs) ((regs)->dx)
#define RETURNED(regs) ((regs)->ax)
#define SYSCALL(regs) BPF_CORE_READ(regs, orig_ax)
#define SYSCALL_PARM1(regs) BPF_CORE_READ(regs, di)
#define NR_ACCEPT 43
#define NR_ACCEPT4 288
#define NR_LISTEN 50
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
};
struct pt_regs {
	int syscallno;
	__u64 orig_x0; /* x0 has what the call returned once it has */
};
#define PARM1(ctx) (((struct user_pt_regs *)(ctx))->regs[0])
#define PARM2(ctx) (((struct user_pt_regs *)(ctx))->regs[1])
#define PARM3(ctx) (((struct user_pt_regs *)(ctx))->regs[2])
#define RETURNED(ctx) (((struct user_pt_regs *)(ctx))->regs[0])
#define SYSCALL(regs) BPF_CORE_READ(regs, syscallno)
#define SYSCALL_PARM1(regs) BPF_CORE_READ(regs, orig_x0)
#define NR_ACCEPT 202
#define NR_ACCEPT4 242
#define NR_LISTEN 201
#endif

#pragma clang attribute pop

#endif
