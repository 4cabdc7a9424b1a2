// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
	"golang.org/x/sys/unix"
)

// programChunks is how often an operation's chunk is played for statistics of programs.
const programChunks = 4

// countPrograms has the kernel count what each program of the tracer executes: its
// statistics are nanoseconds, which are instructions here. They make a program dearer, so
// that they are on for this only; what they count of themselves is in each run.
func countPrograms(r *tracer.Running, s *session) (counts []programCount, err error) {
	ids, err := r.ProgramIDs()
	if err != nil {
		return nil, err
	}
	var programs []*ebpf.Program
	defer func() {
		for _, p := range programs {
			err = errors.Join(err, p.Close())
		}
	}()
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return nil, fmt.Errorf("open BPF program %d: %w", id, err)
		}
		programs = append(programs, p)
	}
	on, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return nil, fmt.Errorf("enable BPF statistics: %w", err)
	}
	defer func() { err = errors.Join(err, on.Close()) }()
	runs, instructions := make([]float64, len(programs)), make([]float64, len(programs))
	add := func(sign float64) func() error {
		return func() error {
			for i, p := range programs {
				stats, err := p.Stats()
				if err != nil {
					return fmt.Errorf("read BPF statistics: %w", err)
				}
				runs[i] += sign * float64(stats.RunCount)
				instructions[i] += sign * float64(stats.Runtime)
			}
			return nil
		}
	}
	w := traffic.Stopwatch{BeforeLap: add(-1), AfterLap: add(1)}
	for range programChunks {
		if err := s.play(chunkOperations, &w); err != nil {
			return nil, err
		}
	}
	for i, p := range programs {
		if runs[i] == 0 {
			continue
		}
		info, err := p.Info()
		if err != nil {
			return nil, fmt.Errorf("read BPF program: %w", err)
		}
		const all = programChunks * chunkOperations
		counts = append(counts, programCount{info.Name, runs[i] / all, instructions[i] / all})
	}
	slices.SortFunc(counts, func(a, b programCount) int { return cmp.Compare(b.Instructions, a.Instructions) })
	return counts, nil
}
