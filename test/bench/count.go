// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"
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

// chunkOperations is how many are counted together. A timer's tick is in one chunk of some
// ten, which the median leaves out.
const chunkOperations = 32

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
	if err := letKeep(); err != nil {
		return nil, err
	}
	t, err := newTarget(ctx, c.port)
	if err != nil {
		return nil, fmt.Errorf("set up traffic: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	all = &counting{}
	untraced := variant{tracer: tracer{name: verbUntraced}, verb: verbUntraced, only: anyOperation}
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
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	return all, c.countAll(t, untraced, nil, all)
}

// countTraced counts with a tracer attached.
func (c *countConfig) countTraced(ctx context.Context, t *target, v variant, all *counting) error {
	r, err := v.start(ctx)
	if err != nil {
		return err
	}
	err = c.countAll(t, v, r, all)
	if err == nil && v.verb == verbTrace && !v.base {
		err = keepPlaces(r, v.backend)
	}
	if err != nil {
		return errors.Join(err, r.abandon())
	}
	if _, err = r.stop(); v.verb == verbScript && errors.Is(err, errStuck) {
		fmt.Fprintln(c.stderr, "bench:", err)
		err = nil
	}
	time.Sleep(3 * settle) // programs are freed after a grace period
	return err
}

func keepPlaces(r *running, backend string) error {
	places, err := r.places()
	if err != nil {
		return err
	}
	content, err := json.Marshal(places)
	if err != nil {
		return err
	}
	return os.WriteFile(placesFile(backend), content, 0o644)
}

// countAll counts each operation, then its programs.
func (c *countConfig) countAll(t *target, v variant, r *running, all *counting) error {
	for _, o := range c.operations {
		if !v.only(o) {
			continue
		}
		time.Sleep(settle)
		got := counted{Verb: v.verb, Backend: v.backend, Base: v.base, Operation: o.name}
		err := t.alone(func() error { return c.countOperation(t, o, v, r, &got) })
		if err != nil {
			return fmt.Errorf("%s: %w", o.title, err)
		}
		fmt.Fprintf(c.stderr, "bench: %-22s %-20s %9.0f (mean %.0f)\n", v.name, o.name, got.Median, got.Mean)
		all.Counted = append(all.Counted, got)
	}
	return nil
}

// pause lets a tracer read its ring, which costs no time of ours.
const pause = 20 * time.Millisecond

func (c *countConfig) countOperation(t *target, o operation, v variant, r *running, got *counted) (err error) {
	s, err := o.open(t, (o.warmChunks()+c.chunks)*chunkOperations)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	cost := lapCost()
	var values []float64
	for n := range o.warmChunks() + c.chunks {
		var w stopwatch
		if err := s.play(chunkOperations, &w); err != nil {
			return err
		}
		if n >= o.warmChunks() {
			values = append(values, (float64(w.total)-cost*float64(w.laps))/chunkOperations)
			got.Mean += values[len(values)-1] / float64(c.chunks)
		}
		if v.verb == verbTraceAll {
			time.Sleep(pause)
		}
	}
	got.Median, got.Chunks = quantile(values, 0.5), len(values)
	if r == nil || !c.programs {
		return nil
	}
	got.Programs, err = r.countPrograms(s)
	return err
}
