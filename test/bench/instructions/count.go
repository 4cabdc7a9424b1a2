// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/synspy/synspy/test/bench/figures"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
)

// countConfig is what to count on this machine, whose clock counts instructions.
type countConfig struct {
	synspy, base, peer, self string // paths
	port                     uint16
	verbs, backends          []string
	operations               []operation
	chunks                   int
	programs                 bool
	stderr                   io.Writer
}

// warmChunks are played first, uncounted: caches of the slab allocator fill up. Where packets
// are dropped they are more than the records that a tracer writes in a second.
func (o operation) warmChunks() int {
	if o.dropped() {
		return 1 + recordsPerSecond/chunkOperations
	}
	return 4
}

// recordsPerSecond is diagnose's --rate; trace's is less.
const recordsPerSecond = 1000

// counted is what one operation costs with one variant, in instructions.
type counted struct {
	Verb      string  `json:"verb"`
	Backend   string  `json:"backend,omitempty"`
	Base      bool    `json:"base,omitempty"` // of the synspy to compare with
	Operation string  `json:"operation"`
	Median    float64 `json:"median"` // of the chunks
	Mean      float64 `json:"mean"`   // of the chunks: ticks included
	Chunks    int     `json:"chunks"`
	// Programs are those that ran, most costly first.
	Programs []programCount `json:"programs,omitempty"`
}

// programCount is what a BPF program costs one operation.
type programCount struct {
	Name         string  `json:"name"`
	Runs         float64 `json:"runs"`
	Instructions float64 `json:"instructions"`
}

// counting is all that was counted in one boot.
type counting struct {
	Counted []counted `json:"counted"`
}

// count counts everything there is to count.
func (c *countConfig) count(ctx context.Context) (all *counting, err error) {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	if err := traffic.LetKeep(); err != nil {
		return nil, err
	}
	t, err := traffic.NewTarget(ctx, c.port)
	if err != nil {
		return nil, fmt.Errorf("set up traffic: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	all = &counting{}
	untraced := variant{Tracer: tracer.Tracer{Name: tracer.VerbUntraced}, verb: tracer.VerbUntraced, only: anyOperation}
	// The first time is left out: what the kernel allocates for good is in it.
	first := *c
	first.chunks = 2
	if err := first.countAll(t, untraced, nil, &counting{}); err != nil {
		return nil, err
	}
	if err := c.countAll(t, untraced, nil, all); err != nil {
		return nil, err
	}
	for _, v := range c.variants() {
		if err := c.countTraced(ctx, t, v, all); err != nil {
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	return all, c.countAll(t, untraced, nil, all)
}

// countTraced counts with a tracer attached.
func (c *countConfig) countTraced(ctx context.Context, t *traffic.Target, v variant, all *counting) error {
	r, err := v.Start(ctx)
	if err != nil {
		return err
	}
	err = c.countAll(t, v, r, all)
	if err == nil && v.verb == tracer.VerbTrace && !v.base {
		err = tracer.KeepPlaces(r, v.backend)
	}
	if err != nil {
		return errors.Join(err, r.Abandon())
	}
	if _, err = r.Stop(); v.verb == tracer.VerbScript && errors.Is(err, tracer.ErrStuck) {
		fmt.Fprintln(c.stderr, "bench:", err)
		err = nil
	}
	time.Sleep(3 * traffic.Settle) // programs are freed after a grace period
	return err
}

// countAll counts each operation, then its programs.
func (c *countConfig) countAll(t *traffic.Target, v variant, r *tracer.Running, all *counting) error {
	for _, o := range c.operations {
		if !v.only(o) {
			continue
		}
		time.Sleep(traffic.Settle)
		got := counted{Verb: v.verb, Backend: v.backend, Base: v.base, Operation: o.name}
		err := t.Alone(func() error { return c.countOperation(t, o, v, r, &got) })
		if err != nil {
			return fmt.Errorf("%s: %w", o.title, err)
		}
		fmt.Fprintf(c.stderr, "bench: %-22s %-20s %9.0f (mean %.0f)\n", v.Name, o.name, got.Median, got.Mean)
		all.Counted = append(all.Counted, got)
	}
	return nil
}

// pause lets a tracer read its ring, which costs no time of ours.
const pause = 20 * time.Millisecond

func (c *countConfig) countOperation(t *traffic.Target, o operation, v variant, r *tracer.Running, got *counted) (err error) {
	s, err := o.open(t, (o.warmChunks()+c.chunks)*chunkOperations)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	cost := traffic.LapCost()
	var values []float64
	for n := range o.warmChunks() + c.chunks {
		var w traffic.Stopwatch
		if err := s.play(chunkOperations, &w); err != nil {
			return err
		}
		if n >= o.warmChunks() {
			values = append(values, (float64(w.Total)-cost*float64(w.Laps))/chunkOperations)
			got.Mean += values[len(values)-1] / float64(c.chunks)
		}
		if v.verb == tracer.VerbTraceAll {
			time.Sleep(pause)
		}
	}
	got.Median, got.Chunks = figures.Quantile(values, 0.5), len(values)
	if r == nil || !c.programs {
		return nil
	}
	got.Programs, err = countPrograms(r, s)
	return err
}
