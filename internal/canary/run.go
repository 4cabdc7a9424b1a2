// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"context"
	"sync"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// A canary is no load generator.
const (
	MinInterval = 10 * time.Millisecond
	MaxTargets  = 16
	mostPending = 128 // probes of one target that wait for an answer at once
)

// Config says how to probe.
type Config struct {
	Network  Network
	Interval time.Duration // between the probes of one target
	Timeout  time.Duration // of a probe
	Count    uint64        // probes of each target; 0: no limit
}

// Run probes the targets until the context ends or each has had its count, and
// returns a summary of each. A probe that takes long does not hold up the next
// one, or those that are slow would be asked least. emit gets every record, from
// one goroutine at a time; its first error ends the run and is returned.
func Run(ctx context.Context, targets []*Target, config Config, emit func(event.Canary) error,
) ([]event.CanarySummary, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	runs := make([]*run, len(targets))
	var (
		loops sync.WaitGroup
		out   sync.Mutex
		first error
	)
	deliver := func(r *run, record event.Canary) {
		out.Lock()
		defer out.Unlock()
		r.tally.add(record)
		if first != nil {
			return
		}
		if first = emit(record); first != nil {
			cancel(first)
		}
	}
	for i, target := range targets {
		r := &run{target: target, config: config, tally: newTally()}
		r.emit = func(record event.Canary) { deliver(r, record) }
		runs[i] = r
		offset := config.Interval / time.Duration(len(targets)) * time.Duration(i) // not all at once
		loops.Go(func() { r.loop(ctx, offset) })
	}
	loops.Wait()
	summaries := make([]event.CanarySummary, len(runs))
	for i, r := range runs {
		summaries[i] = r.tally.summary(r.target.Name, time.Since(began))
	}
	return summaries, first
}

// run is the probing of one target.
type run struct {
	target *Target
	config Config
	tally  *tally
	emit   func(event.Canary)

	pending chan struct{}
	probes  sync.WaitGroup
}

// loop starts the probes, and returns when the last has ended.
func (r *run) loop(ctx context.Context, offset time.Duration) {
	defer r.probes.Wait()
	select {
	case <-ctx.Done():
		return
	case <-time.After(offset):
	}
	r.pending = make(chan struct{}, mostPending)
	next := time.NewTicker(r.config.Interval)
	defer next.Stop()
	for seq := uint64(1); ; seq++ {
		r.start(ctx, seq)
		if seq == r.config.Count {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
	}
}

// start begins one probe.
func (r *run) start(ctx context.Context, seq uint64) {
	began := event.Time{Time: time.Now()}
	resolving, cancel := context.WithTimeout(ctx, r.config.Timeout)
	to, err := r.target.Resolve(resolving, r.config.Network)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			record := Unresolved(err)
			record.Time, record.Target, record.Seq = began, r.target.Name, seq
			r.emit(record)
		}
		return
	}
	select {
	case r.pending <- struct{}{}:
	default:
		r.tally.skip()
		return
	}
	r.probes.Go(func() {
		record := Probe(ctx, to, r.config.Timeout)
		<-r.pending
		record.Target, record.Seq = r.target.Name, seq
		r.emit(record)
	})
}
