// SPDX-License-Identifier: Apache-2.0

// Package throughput measures what of a listener's throughput is left under a tracer, in a virtual
// machine and here, and holds it against the targets of the project.
package throughput

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

	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
)

// How much traffic.
const (
	burstFrames   = 4096
	burstsPerHalf = 3 // of each kind in one half of a pair
)

// bench measures on this machine.
type bench struct {
	config
	target *traffic.Target
	record recorder
	log    io.Writer
	begin  time.Time
}

// measure runs everything on the machine that this process runs on.
func measure(ctx context.Context, c config, record recorder, log io.Writer) (err error) {
	// A collection in the middle of a burst would be measured.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	t, err := traffic.NewTarget(ctx, c.port)
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
		if tr.ThroughputOnly {
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
func (b *bench) bursts(ready func()) (map[string]traffic.Times, error) {
	all := make(map[string]traffic.Times)
	for n := range burstsPerHalf + 1 {
		frames := burstFrames
		if n == 0 {
			frames = burstFrames / 4 // not counted: an emulator translates code that has just changed
		}
		for _, w := range traffic.Workloads {
			ready()
			runtime.GC()
			took, err := w.Run(b.target, frames)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.Title, err)
			}
			if n > 0 {
				all[w.Name] = append(all[w.Name], took...)
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
				return fmt.Errorf("%s: %w", tr.Name, err)
			}
			time.Sleep(3 * traffic.Settle) // programs are freed after a grace period
			after, err := b.bursts(nothing)
			if err != nil {
				return err
			}
			var line strings.Builder
			for _, w := range traffic.Workloads {
				before, on, after := before[w.Name], on[w.Name], after[w.Name]
				r := result{Kind: "pair", Tracer: tr.Name, Workload: w.Name, Round: round,
					Off: [2]float64{before.Rate(), after.Rate()}, On: on.Rate(),
					WallOff: [2]float64{before.WallRate(), after.WallRate()}, WallOn: on.WallRate()}
				if err := b.record.add(r); err != nil {
					return err
				}
				fmt.Fprintf(&line, "  %s %.0f/s x %.2f", w.Title, r.untraced(), r.ratio())
			}
			b.say("round %d of %d, %s:%s", round, b.pairs, tr.Name, line.String())
			before = after
		}
	}
	return nil
}

// traced runs every workload with a tracer attached.
func (b *bench) traced(ctx context.Context, tr tracer.Tracer, round int) (map[string]traffic.Times, error) {
	r, err := tr.Start(ctx)
	if err != nil {
		return nil, err
	}
	got, err := b.bursts(r.Idle)
	if err != nil {
		return nil, errors.Join(err, r.Abandon())
	}
	r.Idle()
	if tr.ThroughputOnly {
		return got, b.end(tr, r)
	}
	err = errors.Join(
		b.record.add(result{Kind: "start", Tracer: tr.Name, Round: round, Seconds: r.ToReady.Seconds()}),
		b.memory(tr, r, round))
	if err != nil {
		return nil, errors.Join(err, r.Abandon())
	}
	return got, b.end(tr, r)
}

func (b *bench) memory(tr tracer.Tracer, r *tracer.Running, round int) error {
	resident, kernel, err := r.Memory()
	if err != nil {
		return err
	}
	return b.record.add(result{Kind: "memory", Tracer: tr.Name, Round: round, Resident: resident, BPF: kernel})
}

// flood drops many SYNs at once, all of different clients, and looks a second
// later at what the tracer has told of them.
func (b *bench) flood(ctx context.Context, tr tracer.Tracer) error {
	r, err := tr.Start(ctx, tr.FloodArgs...)
	if err != nil {
		return err
	}
	got := result{Kind: "flood", Tracer: tr.Name, Drops: traffic.FloodSize}
	out, err := b.floodInto(r)
	if err != nil {
		return errors.Join(err, r.Abandon())
	}
	got.Printed, got.Counted = tr.Flood(out)
	got.Backend = readBackend(out)
	r.Idle()
	if err := b.memory(tr, r, 0); err != nil {
		return errors.Join(err, r.Abandon())
	}
	out, err = r.Stop()
	if tr.Name == peerName && errors.Is(err, tracer.ErrStuck) {
		b.say("%s: %v; this flood is not counted", tr.Name, err)
		return nil
	}
	if err != nil {
		return err
	}
	got.FinalPrinted, got.FinalCounted = tr.Flood(out)
	if tr.Name == peerName {
		got.FinalCounted = scriptTotal(out)
	} else {
		s, ok := readSummary(out)
		if !ok {
			return fmt.Errorf("%s ended without a summary", tr.Name)
		}
		got.FinalCounted, got.Lost, got.Balanced = s.total(), s.Lost, s.Balanced
	}
	b.say("%s: of a flood of %d drops %d printed, %d told of after 1 s; %d printed, %d counted at the end",
		tr.Name, got.Drops, got.Printed, got.Counted, got.FinalPrinted, got.FinalCounted)
	return b.record.add(got)
}

func (b *bench) floodInto(r *tracer.Running) ([]byte, error) {
	b.target.Next = 0
	if _, err := b.target.DroppedSYNs(traffic.FloodSize); err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	return os.ReadFile(r.Stdout())
}

// end ends a tracer. That the script's had to be killed takes nothing from what was
// measured before; synspy must never need it.
func (b *bench) end(tr tracer.Tracer, r *tracer.Running) error {
	_, err := r.Stop()
	if tr.Name == peerName && errors.Is(err, tracer.ErrStuck) {
		b.say("%s: %v", tr.Name, err)
		return nil
	}
	return err
}

// findEmpty gives the path of the program that has the verb empty, this one, or nothing
// where the empty program cannot attach.
func (b *bench) findEmpty() (self string, err error) {
	detach, err := tracer.Place{Kind: "fexit", At: tracer.EmptyPlace}.AttachEmpty()
	if err != nil {
		b.say("measuring without the empty program: %v", err)
		return "", nil
	}
	if err := detach(); err != nil {
		return "", err
	}
	return os.Executable()
}
