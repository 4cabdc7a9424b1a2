// SPDX-License-Identifier: Apache-2.0

// Package threads watches what the processes do that hold listeners: how their threads sleep and
// run, where in their code, how their cgroups throttle them, and what keeps accept() from
// succeeding.
package threads

import (
	"context"
	"log/slog"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// Of how many listeners threads are watched, and of how many processes of each.
const (
	MaxListeners = 4
	maxProcesses = 32
)

// Watch watches the threads of some listeners' processes during one window.
type Watch struct {
	log       *slog.Logger
	attention *attention
	sampling  *sampling
	stacks    *stackWatch // nil where threads' stacks cannot be had
	noStacks  error       // why
	shortages *shortageWatch
	programs  programs
}

// Options are those of a watch.
type Options struct {
	Start  time.Time
	Window time.Duration // how long it is to last
	BTF    string        // file; empty for the kernel's own
	// Shortages loads what sees accept() fail. It is called at most once.
	Shortages func() (Shortages, error)
}

// Open watches nobody yet.
func Open(options Options, log *slog.Logger) *Watch {
	w := &Watch{log: log, attention: newAttention(options.Start), programs: make(programs)}
	if w.stacks, w.noStacks = openStacks(options.BTF, log); w.noStacks != nil {
		log.Debug("stacks of threads cannot be had", "error", w.noStacks)
		w.stacks = nil
	}
	w.sampling = newSampling(w.attention, w.stacks, options.Window, log)
	w.shortages = newShortageWatch(w.sampling.sampler, options.Shortages, log)
	return w
}

// Begin samples once, and goes on in goroutines until End.
func (w *Watch) Begin(ctx context.Context) {
	w.sampling.begin(ctx)
	w.shortages.begin(ctx)
}

// End waits for the goroutines. It may be called again.
func (w *Watch) End() {
	w.sampling.end()
	w.shortages.end()
}

// Holders are the processes that hold a listener, by the inode of its socket.
type Holders struct {
	Inode     uint64
	Processes []event.Process
}

// Follow says whose threads are watched from now on: those of the first [MaxListeners].
func (w *Watch) Follow(list []Holders) {
	var targets []target
	for _, h := range list[:min(len(list), MaxListeners)] {
		processes := h.Processes[:min(len(h.Processes), maxProcesses)]
		w.Learn(processes)
		for _, p := range processes {
			targets = append(targets, target{p.PID, p.Start, h.Inode})
		}
	}
	w.sampling.watch(targets)
}

// Alarm has threads sampled closely for a while. Where they were not until now, a round begins at
// once, after follow has said whose come first.
func (w *Watch) Alarm(follow func()) {
	if w.attention.alarm(time.Now()) {
		follow()
		w.attention.wake()
	}
}

// Stand takes the listeners whose queues stand still now.
func (w *Watch) Stand(now []Standing) { w.shortages.stand(now) }

// Closely lists when threads were sampled closely, until an offset in ms since the start.
func (w *Watch) Closely(end uint32) []evidence.Span { return w.attention.spent(end) }

// Files is how many files were open on the machine, when most were. To be called after End.
func (w *Watch) Files() evidence.Files { return w.shortages.files }

// Describe adds to a listener what its processes' threads did, and what could not be read of them.
// To be called after End.
func (w *Watch) Describe(l *evidence.Listener, inode uint64, processes []event.Process) {
	var frozen []frozenCgroup
	l.Threads, l.Cgroups, frozen = w.sampling.of(inode, processes)
	for _, by := range frozen {
		l.Frozen, l.FrozenBy = append(l.Frozen, by.path), append(l.FrozenBy, by.file)
	}
	l.AcceptFailures, l.Descriptors = w.shortages.of(inode, processes)
	l.Missing = append(l.Missing, w.sampling.refused.Of(processes)...)
}

// Gaps lists what this kernel does not show of threads. To be called after End.
func (w *Watch) Gaps() (gaps []evidence.Gap) {
	missing := func(need evidence.Need, why string, by ...string) {
		gaps = append(gaps, evidence.Gap{Need: need, Why: why, By: by})
	}
	if err := w.shortages.refused; err != nil {
		missing(evidence.NeedFailures,
			"this kernel does not tell what accept() returned: "+err.Error())
	}
	if w.stacks == nil {
		var by []string
		if exhausted := kernel.Exhausted(w.noStacks); exhausted != "" {
			by = append(by, exhausted)
		}
		missing(evidence.NeedOnCPU, "this kernel lets no program sample threads", by...)
	} else if err := w.stacks.sampler.Support().OnCPU.Err; err != nil {
		missing(evidence.NeedOnCPU,
			"this kernel refuses samples of threads that run: "+err.Error())
	}
	return gaps
}

// namingTime bounds the naming of functions.
const namingTime = 5 * time.Second

// Close adds to the samples of the listeners' threads the stacks that they had in user space, frees
// what was loaded, and returns how many samples of threads were lost. closely is what
// [Watch.Closely] returned.
func (w *Watch) Close(listeners []evidence.Listener, closely []evidence.Span) (lost uint64) {
	w.End()
	if w.stacks == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), namingTime)
	defer cancel()
	loss, err := w.stacks.sampler.Loss()
	if err != nil {
		w.log.Debug("read what the sampler lost", "error", err)
	}
	stacks, err := w.stacks.read(ctx)
	if err != nil {
		w.log.Debug("read stacks", "error", err)
	}
	watched := func(*evidence.Sample) bool { return true }
	if w.stacks.sampler.Support().Late() {
		watched = func(s *evidence.Sample) bool {
			return evidence.Within(closely, s.OffsetMs)
		}
	}
	for i := range listeners {
		for j := range listeners[i].Threads {
			addStacks(&listeners[i].Threads[j], stacks, watched)
		}
	}
	if err := w.stacks.close(); err != nil {
		w.log.Debug("close stacks", "error", err)
	}
	return loss.Counts + loss.Stacks
}
