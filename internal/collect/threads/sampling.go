// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"cmp"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/session"
	"github.com/synspy/synspy/internal/thread"
)

// How often threads are sampled in a window that is short enough, closely and while nothing is
// wrong, how many samples are kept of each thread, of how many threads, and how many stacks are
// told apart.
const (
	threadsEvery = 100 * time.Millisecond
	calmEvery    = 500 * time.Millisecond
	maxSamples   = 1200
	maxWatched   = 1024 // 32 of each of 8 processes of 4 listeners, or more of fewer
	maxStacks    = 4096
)

// target is a process to sample, for the sake of a listener.
type target struct {
	pid   uint32
	start uint64
	inode uint64
}

// threadKey names a thread as it is to a listener.
type threadKey struct {
	pid, tid uint32
	inode    uint64
}

// Sampling takes no more than this part of a CPU: processes with thousands of threads are sampled
// less often.
const (
	closePart = 2
	calmPart  = 100
)

// sampling reads on a goroutine of its own what threads do, and how their cgroups are throttled:
// /proc may take its time.
type sampling struct {
	sampler   *thread.Sampler
	frames    *stackWatch // nil for none
	attention *attention
	start     time.Time
	every     time.Duration // between two samples, closely
	log       *slog.Logger
	closely   bool // the last round was; of the goroutine
	stop      context.CancelFunc
	done      chan struct{}

	mu      sync.Mutex
	targets []target
	threads map[threadKey]*evidence.Thread
	stacks  map[string][]string // each once: most samples have the same
	cpus    map[string]*throttling
	cgroups map[uint32]string         // of a process: the one that limits it
	frozen  map[uint32][]frozenCgroup // of a process: those that it was seen frozen by
	refused session.Refusals
}

// throttling is a cgroup's, and what it was when last read.
type throttling struct {
	evidence.CPU
	last event.CPU
	at   uint32
}

// newSampling samples so often that what it keeps reaches to the window's end.
func newSampling(a *attention, stacks *stackWatch, window time.Duration,
	log *slog.Logger) *sampling {
	return &sampling{sampler: thread.NewSampler("/proc", log), frames: stacks, attention: a,
		start: a.start, every: max(threadsEvery, window/maxSamples), log: log,
		stop: func() {}, done: make(chan struct{}),
		threads: make(map[threadKey]*evidence.Thread),
		stacks:  make(map[string][]string), cpus: make(map[string]*throttling),
		cgroups: make(map[uint32]string), frozen: make(map[uint32][]frozenCgroup),
		refused: make(session.Refusals)}
}

// begin samples once, and goes on in a goroutine until end.
func (w *sampling) begin(ctx context.Context) {
	w.round() // who waits in accept() now is known by that once the queue is full
	ctx, w.stop = context.WithCancel(ctx)
	go w.run(ctx)
}

// end waits for the round that is under way. It may be called again.
func (w *sampling) end() {
	w.stop()
	<-w.done
}

func (w *sampling) watch(targets []target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = targets
}

// run samples until the context ends.
func (w *sampling) run(ctx context.Context) {
	defer close(w.done)
	runtime.LockOSThread() // its CPU time is that of sampling
	defer runtime.UnlockOSThread()
	next := time.NewTimer(w.every)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.attention.woken:
		case <-next.C:
		}
		next.Reset(w.round())
	}
}

// round samples all once, and returns how long to wait. A sample says what was done since the one
// before, so that one of a process is for all its listeners.
func (w *sampling) round() (pause time.Duration) {
	began, used := time.Now(), threadTime()
	closely := w.attention.closely(began)
	w.mu.Lock()
	targets := slices.Clone(w.targets)
	w.mu.Unlock()
	sampled := make(map[uint32]*thread.Sample)
	var pids []uint32
	for _, target := range targets {
		sample, ok := sampled[target.pid]
		if !ok {
			var err error
			if sample, err = w.sampler.Sample(target.pid, target.start,
				target.inode); err != nil {
				w.log.Debug("sample threads", "pid", target.pid, "error", err)
				w.refuse(target.pid, err)
			}
			sampled[target.pid] = sample
			pids = append(pids, target.pid)
		}
		if sample != nil {
			w.take(target, sample)
		}
	}
	used = threadTime() - used
	if w.frames != nil {
		w.frames.follow(pids, closely)
	}
	w.closely = closely
	return max(periodOf(used, w.every, closely)-time.Since(began), 0)
}

// periodOf is the time from one round, which used the CPU for so long, to the next.
func periodOf(used, every time.Duration, closely bool) time.Duration {
	if closely {
		return max(every, closePart*used)
	}
	return max(every, calmEvery, calmPart*used)
}

// threadTime is how long the calling thread has been on a CPU, 0 where that is not known.
func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

func (w *sampling) take(target target, sample *thread.Sample) {
	at := uint32(sample.At.Sub(w.start).Milliseconds())
	w.mu.Lock()
	defer w.mu.Unlock()
	by := frozenCgroup{sample.Frozen, sample.FrozenBy}
	if sample.Frozen != "" && !slices.Contains(w.frozen[target.pid], by) {
		w.frozen[target.pid] = append(w.frozen[target.pid], by)
	}
	polls := sample.Polls(target.inode)
	for i, t := range sample.Threads(target.inode) {
		key := threadKey{target.pid, t.TID, target.inode}
		thread := w.threads[key]
		if thread == nil {
			if len(w.threads) >= maxWatched {
				continue
			}
			thread = &evidence.Thread{PID: target.pid, TID: t.TID}
			w.threads[key] = thread
		}
		thread.Comm = t.Comm
		switch t.Accepts {
		case "":
		case event.AcceptsAlone:
			thread.Alone = thread.Alone || !thread.Acceptor
		default:
			thread.Alone = false
		}
		thread.Acceptor = thread.Acceptor || t.Accepts != ""
		if len(thread.Samples) < maxSamples {
			t.Stack = w.once(t.Stack)
			one := sampleAt(at, &t)
			one.Calm = !w.closely
			one.Polls, one.Frozen = polls[i], sample.Frozen != "" || isFrozen(t.Stack)
			thread.Samples = append(thread.Samples, one)
		}
	}
	if sample.CPU != nil {
		w.takeCPU(target.pid, at, sample.CPU)
	}
	w.refused.Files(target.pid, sample.Refused)
}

func (w *sampling) refuse(pid uint32, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused.Process(pid, err)
}

// once returns the same slice for the same stack.
func (w *sampling) once(stack []string) []string {
	key := strings.Join(stack, "\n")
	if known, ok := w.stacks[key]; ok {
		return known
	}
	if len(w.stacks) < maxStacks {
		w.stacks[key] = stack
	}
	return stack
}

func sampleAt(at uint32, t *event.Thread) evidence.Sample {
	s := evidence.Sample{OffsetMs: at, State: t.State, Kernel: t.Stack}
	if t.Syscall != nil {
		s.Syscall = t.Syscall.Name
	}
	s.RunMs, s.DelayMs = inMs(t.RanNs), inMs(t.WaitedNs)
	return s
}

// isFrozen reports whether the place where a thread sleeps says that its cgroup was frozen: in
// version 2 each by itself, and not all in version 1 have come there yet.
func isFrozen(stack []string) bool {
	return slices.ContainsFunc(stack,
		func(frame string) bool {
			return frame == "do_freezer_trap" ||
				frame == "__refrigerator"
		})
}

func inMs(ns *uint64) *float64 {
	if ns == nil {
		return nil
	}
	ms := float64(*ns) / 1e6
	return &ms
}

// takeCPU adds up how a cgroup was throttled from one sample to the next, whichever of its
// processes was sampled. While nothing was wrong that is a long time: it is all called throttled
// only if the quota ran out in most of its periods.
func (w *sampling) takeCPU(pid uint32, at uint32, cpu *event.CPU) {
	if cpu.Cgroup == "" || cpu.QuotaUs == nil {
		return
	}
	w.cgroups[pid] = cpu.Cgroup
	have := w.cpus[cpu.Cgroup]
	if have == nil {
		have = &throttling{CPU: evidence.CPU{Cgroup: event.Cgroup{Path: cpu.Cgroup},
			Dir: cpu.Dir, V1: cpu.V1}, last: *cpu, at: at}
		w.cpus[cpu.Cgroup] = have
	}
	have.QuotaUs, have.PeriodUs = cpu.QuotaUs, cpu.PeriodUs
	throttled, ns := growth(have.last.Throttled, cpu.Throttled), growth(have.last.ThrottledNs,
		cpu.ThrottledNs)
	periods := growth(have.last.Periods, cpu.Periods)
	have.Periods += periods
	have.Throttled += throttled
	have.ThrottledMs += float64(ns) / 1e6
	from := have.at
	have.last, have.at = *cpu, at
	if throttled+ns == 0 || !w.closely && 2*throttled < periods {
		return
	}
	if n := len(have.Spans); n > 0 && have.Spans[n-1].ToMs >= from {
		have.Spans[n-1].ToMs = at
		return
	}
	have.Spans = append(have.Spans, evidence.Span{FromMs: from, ToMs: at})
}

// growth is 0 where a counter is not known, or another cgroup took the path.
func growth(from, to *uint64) uint64 {
	return evidence.Value(to) - min(evidence.Value(from), evidence.Value(to))
}

// of lists what was seen for a listener: its processes' threads, the cgroups that limit
// them, and those that froze them. To be called after end.
func (w *sampling) of(inode uint64, processes []event.Process) (threads []evidence.Thread,
	cpus []evidence.CPU, frozen []frozenCgroup) {
	for key, t := range w.threads {
		if key.inode == inode {
			threads = append(threads, *t)
		}
	}
	slices.SortFunc(threads, func(a, b evidence.Thread) int {
		if a.PID != b.PID {
			return int(a.PID) - int(b.PID)
		}
		return int(a.TID) - int(b.TID)
	})
	listed := make(map[string]bool)
	for _, p := range processes {
		if cpu := w.cpus[w.cgroups[p.PID]]; cpu != nil && !listed[cpu.Cgroup.Path] {
			listed[cpu.Cgroup.Path] = true
			cpus = append(cpus, cpu.CPU)
		}
		frozen = append(frozen, w.frozen[p.PID]...)
	}
	slices.SortFunc(frozen, func(a, b frozenCgroup) int { return cmp.Compare(a.path, b.path) })
	return threads, cpus, slices.Compact(frozen)
}

// frozenCgroup is a cgroup that was frozen, and the file by which.
type frozenCgroup struct{ path, file string }
