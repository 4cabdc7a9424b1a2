package app

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
)

// How often threads are looked at, of how many listeners, and how many samples are kept
// of each thread.
const (
	threadsEvery     = 100 * time.Millisecond
	watchedListeners = 4
	maxSamples       = 1200
)

// threadTarget is a process to look at, for the sake of a listener.
type threadTarget struct {
	pid   uint32
	start uint64
	inode uint64
}

// threadKey names a thread as it is to a listener.
type threadKey struct {
	pid, tid uint32
	inode    uint64
}

// threadWatch reads on a goroutine of its own what threads do, and how their cgroups are
// throttled: /proc may take its time.
type threadWatch struct {
	sampler *owner.Sampler
	start   time.Time
	log     *slog.Logger
	done    chan struct{}

	mu      sync.Mutex
	targets []threadTarget
	threads map[threadKey]*diagnose.Thread
	cpus    map[string]*diagnose.CPU
	cgroups map[uint32]string // of a process: the one that limits it
}

func newThreadWatch(start time.Time, log *slog.Logger) *threadWatch {
	return &threadWatch{sampler: owner.NewSampler("/proc", log), start: start, log: log, done: make(chan struct{}),
		threads: make(map[threadKey]*diagnose.Thread), cpus: make(map[string]*diagnose.CPU), cgroups: make(map[uint32]string)}
}

func (w *threadWatch) watch(targets []threadTarget) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = targets
}

// run looks until the context ends.
func (w *threadWatch) run(ctx context.Context) {
	defer close(w.done)
	ticker := time.NewTicker(threadsEvery)
	defer ticker.Stop()
	for {
		w.round()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// round looks at all once.
func (w *threadWatch) round() {
	w.mu.Lock()
	targets := slices.Clone(w.targets)
	w.mu.Unlock()
	for _, target := range targets {
		sample, err := w.sampler.Sample(target.pid, target.start, target.inode)
		if err != nil {
			w.log.Debug("sample threads", "pid", target.pid, "error", err)
			continue
		}
		w.take(target, sample)
	}
}

func (w *threadWatch) take(target threadTarget, sample *owner.Sample) {
	at := uint32(sample.At.Sub(w.start).Milliseconds())
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range sample.Threads(target.inode) {
		key := threadKey{target.pid, t.TID, target.inode}
		thread := w.threads[key]
		if thread == nil {
			thread = &diagnose.Thread{PID: target.pid, TID: t.TID}
			w.threads[key] = thread
		}
		thread.Comm = t.Comm
		thread.Acceptor = thread.Acceptor || t.Accepts != ""
		if len(thread.Samples) < maxSamples {
			thread.Samples = append(thread.Samples, sampleAt(at, &t))
		}
	}
	if sample.CPU != nil {
		w.takeCPU(target.pid, at, sample.CPU)
	}
}

func sampleAt(at uint32, t *event.Thread) diagnose.Sample {
	s := diagnose.Sample{OffsetMs: at, State: t.State, Kernel: t.Stack}
	if t.Syscall != nil {
		s.Syscall = t.Syscall.Name
	}
	s.RunMs, s.DelayMs = inMs(t.RanNs), inMs(t.WaitedNs)
	return s
}

func inMs(ns *uint64) *float64 {
	if ns == nil {
		return nil
	}
	ms := float64(*ns) / 1e6
	return &ms
}

// takeCPU adds up how a cgroup was throttled between samples of its processes.
func (w *threadWatch) takeCPU(pid uint32, at uint32, cpu *event.CPU) {
	if cpu.Cgroup == "" || cpu.QuotaUs == nil {
		return
	}
	w.cgroups[pid] = cpu.Cgroup
	have := w.cpus[cpu.Cgroup]
	if have == nil {
		have = &diagnose.CPU{Cgroup: event.Cgroup{Path: cpu.Cgroup}}
		w.cpus[cpu.Cgroup] = have
	}
	have.QuotaUs, have.PeriodUs = cpu.QuotaUs, cpu.PeriodUs
	if cpu.DuringMs == nil {
		return
	}
	have.Periods += valueOf(cpu.PeriodsDuring)
	have.Throttled += valueOf(cpu.ThrottledDuring)
	have.ThrottledMs += float64(valueOf(cpu.ThrottledNsDuring)) / 1e6
	if valueOf(cpu.ThrottledDuring)+valueOf(cpu.ThrottledNsDuring) == 0 {
		return
	}
	from := at - min(at, uint32(*cpu.DuringMs))
	if n := len(have.Spans); n > 0 && have.Spans[n-1].ToMs >= from {
		have.Spans[n-1].ToMs = at
		return
	}
	have.Spans = append(have.Spans, diagnose.Span{FromMs: from, ToMs: at})
}

func valueOf(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}

// of lists what was seen for a listener: its processes' threads, and the cgroups that limit
// them. To be called once the context has ended.
func (w *threadWatch) of(inode uint64, processes []event.Process) (threads []diagnose.Thread, cpus []diagnose.CPU) {
	<-w.done
	for key, t := range w.threads {
		if key.inode == inode {
			threads = append(threads, *t)
		}
	}
	slices.SortFunc(threads, func(a, b diagnose.Thread) int {
		if a.PID != b.PID {
			return int(a.PID) - int(b.PID)
		}
		return int(a.TID) - int(b.TID)
	})
	told := make(map[string]bool)
	for _, p := range processes {
		if cpu := w.cpus[w.cgroups[p.PID]]; cpu != nil && !told[cpu.Cgroup.Path] {
			told[cpu.Cgroup.Path] = true
			cpus = append(cpus, *cpu)
		}
	}
	return threads, cpus
}
