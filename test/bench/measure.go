// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// config is what one machine is to measure.
type config struct {
	synspy string // path
	peer   string // path of the script, or empty
	empty  string // path of this program, or empty where its "bench empty" cannot attach
	port   uint16
	pairs  int
	floods int           // per tracer
	budget time.Duration // no further round is begun after this long
}

// How much traffic.
const (
	burstFrames   = 4096
	floodSize     = 45000
	burstsPerHalf = 3 // of each kind in one half of a pair
)

// bench measures on this machine.
type bench struct {
	config
	target *target
	record recorder
	log    io.Writer
	begin  time.Time
}

// measure runs everything on the machine that this process runs on.
func measure(ctx context.Context, c config, record recorder, log io.Writer) (err error) {
	// A collection in the middle of a burst would be measured.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	t, err := newTarget(ctx, c.port)
	if err != nil {
		return fmt.Errorf("set up traffic: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	machine := result{Kind: "machine", Kernel: strings.TrimSpace(string(release)), CPUs: runtime.NumCPU()}
	if err := record.add(machine); err != nil {
		return err
	}
	b := &bench{config: c, target: t, record: record, log: log, begin: time.Now()}
	if b.empty, err = b.findEmpty(); err != nil {
		return err
	}
	if err := b.rounds(ctx); err != nil {
		return err
	}
	for _, tr := range b.tracers() {
		if tr.throughputOnly {
			continue
		}
		if err := b.programs(ctx, tr); err != nil {
			return err
		}
		for range c.floods {
			if err := b.flood(ctx, tr); err != nil {
				return err
			}
		}
	}
	b.say("done")
	return nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "bench: %s %5.0f s: %s\n", b.record.where, time.Since(b.begin).Seconds(), fmt.Sprintf(format, args...))
}

// bursts runs every workload a few times and gives how long its chunks took. Before
// each burst it calls ready.
func (b *bench) bursts(ready func()) (map[string]times, error) {
	all := make(map[string]times)
	for n := range burstsPerHalf + 1 {
		frames := burstFrames
		if n == 0 {
			frames = burstFrames / 4 // not counted: an emulator translates code that has just changed
		}
		for _, w := range workloads {
			ready()
			runtime.GC()
			took, err := w.run(b.target, frames)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.title, err)
			}
			if n > 0 {
				all[w.name] = append(all[w.name], took...)
			}
		}
	}
	return all, nil
}

func nothing() {}

// rounds measures throughput. Each burst with a tracer stands between two
// without, and is compared with both: what the machine does besides changes
// more slowly than that.
func (b *bench) rounds(ctx context.Context) error {
	before, err := b.bursts(nothing)
	if err != nil {
		return err
	}
	for round := 1; round <= b.pairs; round++ {
		if time.Since(b.begin) > b.budget {
			b.say("time is up after %d of %d rounds", round-1, b.pairs)
			return nil
		}
		for _, tr := range b.tracers() {
			on, err := b.traced(ctx, tr, round)
			if err != nil {
				return fmt.Errorf("%s: %w", tr.name, err)
			}
			time.Sleep(3 * settle) // programs are freed after a grace period
			after, err := b.bursts(nothing)
			if err != nil {
				return err
			}
			var line strings.Builder
			for _, w := range workloads {
				before, on, after := before[w.name], on[w.name], after[w.name]
				r := result{Kind: "pair", Tracer: tr.name, Workload: w.name, Round: round,
					Off: [2]float64{before.rate(), after.rate()}, On: on.rate(),
					WallOff: [2]float64{before.wallRate(), after.wallRate()}, WallOn: on.wallRate()}
				if err := b.record.add(r); err != nil {
					return err
				}
				fmt.Fprintf(&line, "  %s %.0f/s x %.2f", w.title, r.untraced(), r.ratio())
			}
			b.say("round %d of %d, %s:%s", round, b.pairs, tr.name, line.String())
			before = after
		}
	}
	return nil
}

// traced runs every workload with a tracer attached.
func (b *bench) traced(ctx context.Context, tr tracer, round int) (map[string]times, error) {
	r, err := tr.start(ctx)
	if err != nil {
		return nil, err
	}
	got, err := b.bursts(r.idle)
	if err != nil {
		return nil, errors.Join(err, r.abandon())
	}
	r.idle()
	if tr.throughputOnly {
		return got, b.end(tr, r)
	}
	err = errors.Join(
		b.record.add(result{Kind: "start", Tracer: tr.name, Round: round, Seconds: r.toReady.Seconds()}),
		b.memory(tr, r, round))
	if err != nil {
		return nil, errors.Join(err, r.abandon())
	}
	return got, b.end(tr, r)
}

func (b *bench) memory(tr tracer, r *running, round int) error {
	resident, kernel, err := r.memory()
	if err != nil {
		return err
	}
	return b.record.add(result{Kind: "memory", Tracer: tr.name, Round: round, Resident: resident, BPF: kernel})
}

// flood drops many SYNs at once, all of different clients, and looks a second
// later at what the tracer has told of them.
func (b *bench) flood(ctx context.Context, tr tracer) error {
	r, err := tr.start(ctx, tr.floodArgs...)
	if err != nil {
		return err
	}
	got := result{Kind: "flood", Tracer: tr.name, Drops: floodSize}
	out, err := b.floodInto(r)
	if err != nil {
		return errors.Join(err, r.abandon())
	}
	got.Printed, got.Counted = tr.flood(out)
	got.Backend = readBackend(out)
	r.idle()
	if err := b.memory(tr, r, 0); err != nil {
		return errors.Join(err, r.abandon())
	}
	out, err = r.stop()
	if tr.name == peerName && errors.Is(err, errStuck) {
		b.say("%s: %v; this flood is not counted", tr.name, err)
		return nil
	}
	if err != nil {
		return err
	}
	got.FinalPrinted, got.FinalCounted = tr.flood(out)
	if tr.name == peerName {
		got.FinalCounted = scriptTotal(out)
	} else {
		s, ok := readSummary(out)
		if !ok {
			return fmt.Errorf("%s ended without a summary", tr.name)
		}
		got.FinalCounted, got.Lost, got.Balanced = s.total(), s.Lost, s.Balanced
	}
	b.say("%s: of a flood of %d drops %d printed, %d told of after 1 s; %d printed, %d counted at the end",
		tr.name, got.Drops, got.Printed, got.Counted, got.FinalPrinted, got.FinalCounted)
	return b.record.add(got)
}

func (b *bench) floodInto(r *running) ([]byte, error) {
	b.target.next = 0
	if _, err := b.target.droppedSYNs(floodSize); err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	return os.ReadFile(r.stdout())
}

// end ends a tracer. That the script's had to be killed takes nothing from what was
// measured before; synspy must never need it.
func (b *bench) end(tr tracer, r *running) error {
	_, err := r.stop()
	if tr.name == peerName && errors.Is(err, errStuck) {
		b.say("%s: %v", tr.name, err)
		return nil
	}
	return err
}

// abandon ends a tracer after an error.
func (r *running) abandon() error {
	_, err := r.stop()
	return err
}
