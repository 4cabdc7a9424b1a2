// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/sampler"
	"github.com/synspy/synspy/internal/symbol"
)

// stackWatch sees what the threads of some processes do, and names it. It is for one goroutine at a
// time.
type stackWatch struct {
	sampler *sampler.Sampler
	symbols *symbol.Symbols
	log     *slog.Logger

	pids    []uint32 // followed
	closely bool
	readAt  time.Time       // when their code is to be read again
	opened  map[uint32]bool // whose code was opened
}

// codeEvery is how often the mapped code of the processes watched is read again.
const codeEvery = time.Second

// openStacks watches nobody yet. Where the kernel lets no thread be seen, the error is
// sampler.ErrCannotSample.
func openStacks(btfFile string, log *slog.Logger) (*stackWatch, error) {
	sampler, err := sampler.OpenSampler(btfFile, log)
	if err != nil {
		return nil, err
	}
	return &stackWatch{sampler: sampler, symbols: symbol.New(log), log: log,
		opened: make(map[uint32]bool)}, nil
}

// follow watches the processes if they are sampled closely, or if this kernel would not show a
// thread that has fallen asleep by then. Else it opens their code alone: they may be gone when it
// is needed.
func (w *stackWatch) follow(pids []uint32, closely bool) {
	if !closely && w.sampler.Support().Late() {
		if w.closely {
			w.rest()
		}
		w.open(pids)
		return
	}
	if w.closely && slices.Equal(pids, w.pids) && time.Now().Before(w.readAt) {
		return
	}
	w.closely, w.pids, w.readAt = true, pids, time.Now().Add(codeEvery)
	if err := w.watch(pids); err != nil {
		w.log.Debug("watch stacks", "error", err)
	}
}

func (w *stackWatch) rest() {
	w.closely = false
	if err := w.sampler.Watch(nil); err != nil {
		w.log.Debug("stop watching stacks", "error", err)
	}
}

// open opens the code of processes that it has not seen before.
func (w *stackWatch) open(pids []uint32) {
	for _, pid := range pids {
		if w.opened[pid] || len(w.opened) >= symbol.MaxProcesses {
			continue
		}
		w.opened[pid] = true
		if err := w.symbols.Watch(pid); err != nil {
			w.log.Debug("read a process's code", "pid", pid, "error", err)
		}
	}
}

// watch replaces the set of processes watched; what was seen of others is kept.
func (w *stackWatch) watch(pids []uint32) error {
	if err := w.sampler.Watch(pids); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := w.symbols.Watch(pid); err != nil {
			w.log.Debug("read a process's code", "pid", pid, "error", err)
		}
	}
	return nil
}

// read returns all stacks seen so far. Naming them ends with the context; those it did not come to
// are without names.
func (w *stackWatch) read(ctx context.Context) ([]event.Stack, error) {
	samples, err := w.sampler.Read()
	if err != nil {
		return nil, err
	}
	addresses := make([]symbol.Stack, 0, len(samples))
	for i := range samples {
		addresses = append(addresses,
			symbol.Stack{PID: samples[i].TGID, User: samples[i].User,
				Kernel: samples[i].Kernel})
	}
	named := w.symbols.Resolve(ctx, addresses)
	stacks := make([]event.Stack, 0, len(samples))
	for i := range samples {
		stacks = append(stacks, stackOf(&samples[i], &named[i]))
	}
	return stacks, nil
}

// language is what a process's executable was written in, empty where it does not say.
func (w *stackWatch) language(pid uint32) string {
	if err := w.symbols.Watch(pid); err != nil {
		w.log.Debug("read a process's code", "pid", pid, "error", err)
	}
	return w.symbols.Language(pid)
}

func (w *stackWatch) close() error {
	w.symbols.Close()
	return w.sampler.Close()
}

func stackOf(sample *sampler.Sample, named *symbol.Named) event.Stack {
	stack := event.Stack{
		PID: sample.TGID, TID: sample.TID, Comm: symbol.Clean(sample.Comm),
		State: sample.State, Frames: named.Frames,
		Missing: missing(sample, named), Before: sample.Before,
	}
	if sample.State.OnCPU() {
		stack.Samples, stack.Hz = sample.Times, sampler.SamplerHz
		return stack
	}
	stack.Times = sample.Times
	stack.NS, stack.RunDelayNS = uint64(sample.Away), uint64(sample.Delay)
	stack.LongestNS, stack.OngoingNS = uint64(sample.Longest), uint64(sample.Ongoing)
	return stack
}

// missing says why a stack has not all frames of user space.
func missing(sample *sampler.Sample, named *symbol.Named) event.Missing {
	switch {
	case sample.UserLost:
		return event.MissingLost
	case len(sample.User) == 0:
		return event.MissingUser
	case named.Cut:
		return event.MissingCallers
	case sample.UserCut:
		return event.MissingDeep
	}
	return ""
}
