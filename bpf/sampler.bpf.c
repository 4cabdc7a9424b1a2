// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the threads of a few processes do: on a CPU, by samples of a clock, and off it, from the
 * moment they leave it until they are back. An object of its own, loaded by nothing but the
 * sampler: sched_switch is the hottest of tracepoints.
 */
#include "row.h"
#include "sampler.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline bool watches(__u32 tgid)
{
	__u32 word = tgid / 64 % WATCHED_WORDS;
	__u64 *bits = bpf_map_lookup_elem(&watched_bits,
					  &word); /* no call: the verifier inlines it */

	return bits && *bits >> tgid % 64 & 1 && bpf_map_lookup_elem(&watched, &tgid);
}

static __always_inline __s32 stack_id(void *ctx, __u64 flags)
{
	long id = bpf_get_stackid(ctx, &stacks, flags);

	if (id == -EEXIST) { /* another stack has its bucket */
		__sync_fetch_and_add(&collisions, 1);
		return STACK_LOST;
	}
	return id < 0 ? STACK_NONE : id;
}

static __always_inline struct activity_total *total_of(const struct activity *key)
{
	static const struct activity_total none = {};
	struct activity_total *count = find_or_add(&activities, key, &none);

	if (!count)
		__sync_fetch_and_add(&lost, 1);
	return count;
}

SEC("perf_event")
int perf_event_cpu_clock(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct activity key = { .tgid = id >> 32, .tid = id, .state = THREAD_RUNNING };
	struct activity_total *count;

	if (!watches(key.tgid))
		return 0;
	key.user = stack_id(ctx, BPF_F_USER_STACK);
	key.kernel = stack_id(ctx, 0);
	count = total_of(&key);
	if (!count)
		return 0;
	__sync_fetch_and_add(&count->times, 1);
	bpf_get_current_comm(count->comm, sizeof(count->comm));
	return 0;
}

/* run_delay_of is how long the thread waited for a CPU in its life; 0 where not kept. */
static __always_inline __u64 run_delay_of(struct task_struct___sampler *task)
{
	return bpf_core_field_exists(task->sched_info.run_delay) ? task->sched_info.run_delay : 0;
}

static __always_inline __u32 task_state(struct task_struct___sampler *task)
{
	struct task_struct___state *old = (void *)task;

	if (bpf_core_field_exists(task->__state))
		return task->__state;
	return bpf_core_field_exists(old->state) ? old->state : 0;
}

static __always_inline __u32 thread_state_of(__u32 state)
{
	if (state & TASK_UNINTERRUPTIBLE)
		return THREAD_UNINTERRUPTIBLE;
	if (state & (TASK_STOPPED | TASK_TRACED))
		return THREAD_STOPPED;
	return state & TASK_INTERRUPTIBLE ? THREAD_SLEEPING : THREAD_RUNNABLE;
}

/* add_run_delay books how long the last absence was spent waiting for a CPU. The kernel adds it up
 * only after this tracepoint told that the thread is back: it is known when it leaves again. */
static __always_inline void add_run_delay(struct thread *thread, __u64 delayed)
{
	struct activity_total *count;

	if (!thread->delayed || delayed <= thread->delayed)
		return;
	count = bpf_map_lookup_elem(&activities, &thread->activity);
	if (count)
		__sync_fetch_and_add(&count->delay, delayed - thread->delayed);
}

static __always_inline void off_cpu(void *ctx, struct task_struct___sampler *task, __u32 state)
{
	static const struct thread none = {};
	__u32 tid = task->pid;
	struct thread *thread;
	__u64 delayed;

	if (state & TASK_ENDED) {
		bpf_map_delete_elem(&threads, &tid);
		return;
	}
	thread = find_or_add(&threads, &tid, &none);
	if (!thread) {
		__sync_fetch_and_add(&lost, 1);
		return;
	}
	delayed = run_delay_of(task);
	add_run_delay(thread, delayed);
	thread->delayed = delayed;
	thread->activity.tgid = task->tgid;
	thread->activity.tid = tid;
	thread->activity.state = thread_state_of(state);
	thread->activity.user = stack_id(ctx, BPF_F_USER_STACK);
	thread->activity.kernel = stack_id(ctx, 0);
	bpf_get_current_comm(thread->comm, sizeof(thread->comm));
	thread->left = bpf_ktime_get_ns();
}

static __always_inline void on_cpu(struct task_struct___sampler *task)
{
	struct activity_total *count;
	struct thread *thread;
	__u32 tid = task->pid;
	__u64 away;

	thread = bpf_map_lookup_elem(&threads, &tid);
	if (!thread || !thread->left)
		return;
	away = bpf_ktime_get_ns() - thread->left;
	thread->left = 0;
	count = total_of(&thread->activity);
	if (!count)
		return;
	__sync_fetch_and_add(&count->times, 1);
	__sync_fetch_and_add(&count->ns, away);
	if (away > count->longest)
		count->longest = away; /* a thread arrives on one CPU at a time */
	__builtin_memcpy(count->comm, thread->comm, sizeof(count->comm));
}

/* Here current still is the thread that leaves, so its stacks can be taken. */
SEC("tp_btf/sched_switch")
int tp_btf_sched_switch(__u64 *ctx)
{
	struct task_struct___sampler *prev = (void *)ctx[1], *next = (void *)ctx[2];
	__u32 state = 0;

	if (watches(prev->tgid)) {
		if (ctx[0] & 1) { /* preempted: it would go on, whatever its state */
			state = 0;
		} else if (have_prev_state) {
			state = ctx[3];
			barrier_var(state); /* or both loads become one */
		} else {
			state = task_state(prev);
			barrier_var(state);
		}
		off_cpu(ctx, prev, state);
	}
	if (watches(next->tgid))
		on_cpu(next);
	return 0;
}

/* Threads that left before they were watched, with where in user space they did: these cannot be
 * had from sched_switch until they are back, and then it may be too late. */
SEC("iter/task")
int iter_task(struct bpf_iter__task *ctx)
{
	struct task_struct *checked = ctx->task; /* loaded again, it might be none */
	struct task_struct___sampler *task = (void *)checked;
	struct thread thread = {};
	long length;
	__u32 state;

	if (!task || !watches(task->tgid))
		return 0;
	state = task_state(task);
	if (thread_state_of(state) == THREAD_RUNNABLE || state & TASK_ENDED)
		return 0;
	thread.activity.tgid = task->tgid;
	thread.activity.tid = task->pid;
	thread.activity.state = thread_state_of(state);
	thread.activity.user = thread.activity.kernel = STACK_BEFORE;
	thread.delayed = run_delay_of(task);
	thread.left = bpf_ktime_get_ns();
	bpf_probe_read_kernel(thread.comm, sizeof(thread.comm), task->comm);
	if (bpf_map_update_elem(&threads, &thread.activity.tid, &thread, BPF_NOEXIST))
		return 0; /* seen at sched_switch already */
	if (thread_state_of(task_state(task)) == THREAD_RUNNABLE) { /* it woke meanwhile */
		bpf_map_delete_elem(&threads, &thread.activity.tid);
		return 0;
	}
	asleep.ip = asleep.sp = asleep.bp = 0;
	asleep.tgid = thread.activity.tgid;
	asleep.tid = thread.activity.tid;
	asleep.left = thread.left;
	length = bpf_get_task_stack(checked, asleep.kernel, sizeof(asleep.kernel), 0);
	asleep.kernel_length = length < 0 ? 0 : length / sizeof(asleep.kernel[0]);
	if (have_task_pt_regs)
		read_user_registers((void *)bpf_task_pt_regs(checked));
	bpf_seq_write(ctx->meta->seq, &asleep, sizeof(asleep));
	return 0;
}
