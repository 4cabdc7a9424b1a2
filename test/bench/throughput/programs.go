// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
	"golang.org/x/sys/unix"
)

// programStats is what one BPF program has done since statistics were on.
type programStats struct {
	name        string
	runs, nanos uint64
}

// programs asks the kernel how long a tracer's BPF programs run. That makes them
// slower, hence not while throughput is measured.
func (b *bench) programs(ctx context.Context, tr tracer.Tracer) error {
	r, err := tr.Start(ctx)
	if err != nil {
		return err
	}
	for _, w := range traffic.Workloads {
		if err := b.programsDuring(r, tr, w); err != nil {
			return errors.Join(err, r.Abandon())
		}
	}
	b.say("%s: asked for BPF statistics", tr.Name)
	return b.end(tr, r)
}

// statBursts is how often that is asked: the quickest run of each program is told,
// because being interrupted is no cost of the program's.
const statBursts = 3

func (b *bench) programsDuring(r *tracer.Running, tr tracer.Tracer, w traffic.Workload) error {
	mine, err := r.ProgramIDs()
	if err != nil {
		return err
	}
	best := make(map[ebpf.ProgramID]result)
	b.target.Around = func(send func() error) error {
		stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
		if err != nil {
			return fmt.Errorf("enable BPF statistics: %w", err)
		}
		before, err := statsOf(mine)
		if err != nil {
			return errors.Join(err, stats.Close())
		}
		if err := errors.Join(send(), stats.Close()); err != nil {
			return err
		}
		after, err := statsOf(mine)
		if err != nil {
			return err
		}
		for id, p := range after {
			got := result{Kind: "program", Tracer: tr.Name, Workload: w.Name, Program: p.name, Frames: burstFrames,
				Runs: p.runs - before[id].runs, Nanos: p.nanos - before[id].nanos}
			if old, ok := best[id]; got.Runs > 0 && (!ok || got.Nanos*old.Runs < old.Nanos*got.Runs) {
				best[id] = got
			}
		}
		return nil
	}
	defer func() { b.target.Around = nil }()
	for range statBursts {
		r.Idle()
		if _, err := w.Run(b.target, burstFrames); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(best)) {
		if err := b.record.add(best[id]); err != nil {
			return err
		}
	}
	return nil
}

// statsOf reads the statistics of BPF programs.
func statsOf(ids []ebpf.ProgramID) (map[ebpf.ProgramID]programStats, error) {
	found := make(map[ebpf.ProgramID]programStats)
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return nil, fmt.Errorf("open BPF program %d: %w", id, err)
		}
		info, err := p.Info()
		stats, statsErr := p.Stats()
		if err := errors.Join(err, statsErr, p.Close()); err != nil {
			return nil, fmt.Errorf("read BPF program %d: %w", id, err)
		}
		found[id] = programStats{info.Name, stats.RunCount, uint64(stats.Runtime)}
	}
	return found, nil
}
