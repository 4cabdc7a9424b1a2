// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"slices"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/thread"
)

// maxPrograms bounds the processes of which it is asked what they run.
const maxPrograms = 256

// programs keeps what processes run: those that ended are not to be asked any more.
type programs map[processID]*event.Software

// processID names a process over the whole life of the machine.
type processID struct {
	pid   uint32
	start uint64
}

// Learn asks what processes run that were not asked before.
func (w *Watch) Learn(processes []event.Process) {
	for _, p := range processes {
		id := processID{p.PID, p.Start}
		if w.programs[id] != nil || len(w.programs) >= maxPrograms {
			continue
		}
		program, err := thread.ProgramOf("/proc", p.PID, p.Start)
		if err != nil {
			w.log.Debug("ask what a process runs", "pid", p.PID, "error", err)
			continue
		}
		w.programs[id] = &program
	}
}

// Named returns the processes with what they run; the slice given may be shared, and is left alone.
func (w *Watch) Named(processes []event.Process) []event.Process {
	w.Learn(processes)
	processes = slices.Clone(processes)
	for i := range processes {
		p := &processes[i]
		program := w.programs[processID{p.PID, p.Start}]
		if program == nil {
			continue
		}
		if w.stacks != nil && program.Language == "" {
			program.Language = w.stacks.language(p.PID)
		}
		if *program != (event.Software{}) {
			p.Program = program
		}
	}
	return processes
}
