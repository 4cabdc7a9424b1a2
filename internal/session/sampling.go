// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/thread"
)

// A listener's threads are sampled at most so often, and of so many of its
// processes; a record waits for that so long. All samplings together take a tenth
// of the time at most.
const (
	sampleEvery      = time.Second
	sampleWait       = 50 * time.Millisecond
	SampledProcesses = 8
)

// sampling samples a dropping listener's threads while it drops, for the record that comes right
// after. It reads on a goroutine of its own, one listener at a time: /proc may take its time.
type sampling struct {
	log     *slog.Logger
	sampler *thread.Sampler
	At      map[uint64]uint64    // when a listener was sampled last, CLOCK_MONOTONIC, ns
	ready   map[uint64][]sampled // what no record has carried yet
	began   uint64
	took    uint64
	of      uint64 // the listener of the sampling under way
	waited  bool   // a record has waited for it
	done    chan samples
}

// samples is what came of a sampling, and how long it took in ns.
type samples struct {
	all  []sampled
	took uint64
}

// sampled is one process's sample.
type sampled struct {
	pid    uint32
	start  uint64
	inode  uint64
	sample *thread.Sample
}

// NewSampling samples the threads of processes that records name.
func NewSampling(log *slog.Logger) *sampling {
	return &sampling{log: log, sampler: thread.NewSampler("/proc", log),
		At:    make(map[uint64]uint64),
		ready: make(map[uint64][]sampled)}
}

// Complete adds to a record what its processes' threads are doing, where that was
// just read. arrived is when the record came here, CLOCK_MONOTONIC, ns.
func (s *sampling) Complete(drop *event.Drop, socket, arrived uint64) {
	if len(drop.Processes) == 0 {
		return
	}
	s.take(0)
	if s.done == nil && arrived >= s.At[socket]+uint64(sampleEvery) &&
		arrived >= s.began+10*s.took {
		s.begin(drop, socket, kernel.Monotonic())
	}
	if s.done != nil && s.of == socket && !s.waited {
		s.waited = true
		s.take(min(sampleWait, RefreshWait-time.Duration(kernel.Monotonic()-arrived)))
	}
	for _, one := range s.ready[socket] {
		one.tell(drop.Processes)
	}
	delete(s.ready, socket)
}

// begin reads the threads of the processes that accept, or else of all.
func (s *sampling) begin(drop *event.Drop, socket, now uint64) {
	if len(s.At) > MaxKnown {
		clear(s.At)
	}
	s.At[socket], s.began, s.of, s.waited = now, now, socket, false
	list := slices.Clone(drop.Processes)
	if slices.ContainsFunc(list, isAcceptor) {
		list = slices.DeleteFunc(list, func(p event.Process) bool { return !isAcceptor(p) })
		// Those that accepted longest ago first: who is stuck says most.
		slices.SortStableFunc(list,
			func(a, b event.Process) int {
				return cmp.Compare(acceptAge(b),
					acceptAge(a))
			})
	}
	list = list[:min(len(list), SampledProcesses)]
	var inode uint64
	if drop.Listener != nil {
		inode = drop.Listener.Inode
	}
	done := make(chan samples, 1)
	s.done = done
	go func() {
		var all []sampled
		for _, p := range list {
			sample, err := s.sampler.Sample(p.PID, p.Start, inode)
			if err != nil {
				s.log.Debug("sample threads", "pid", p.PID, "error", err)
				continue
			}
			all = append(all, sampled{p.PID, p.Start, inode, sample})
		}
		done <- samples{all, kernel.Monotonic() - now}
	}()
}

// take waits so long for the sampling under way, if there is one.
func (s *sampling) take(wait time.Duration) {
	if s.done == nil {
		return
	}
	var got samples
	select {
	case got = <-s.done:
	default:
		if wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case got = <-s.done:
		case <-timer.C:
			return
		}
	}
	s.done, s.took = nil, got.took
	if len(s.ready) > maxReady {
		clear(s.ready)
	}
	s.ready[s.of] = got.all
}

// maxReady bounds what waits for a record that may never come.
const maxReady = 1024

// forget ends what is kept of a listener.
func (s *sampling) forget(socket uint64) {
	delete(s.At, socket)
	delete(s.ready, socket)
}

// tell puts a sample into the process that it is of.
func (s *sampled) tell(processes []event.Process) {
	for i := range processes {
		p := &processes[i]
		if p.PID != s.pid || p.Start != s.start {
			continue
		}
		FillSample(p, s.sample, s.inode)
	}
}

// FillSample adds what a process's threads did.
func FillSample(p *event.Process, sample *thread.Sample, inode uint64) {
	p.SampledAt = event.Time{Time: sample.At}
	p.ThreadCount = int64(sample.Total)
	p.Threads = sample.Threads(inode)
	p.CPU = sample.CPU
}

func isAcceptor(p event.Process) bool { return p.Role == event.RoleAcceptor }

func acceptAge(p event.Process) uint64 {
	if p.LastAcceptMs == nil {
		return 0
	}
	return *p.LastAcceptMs
}
