// SPDX-License-Identifier: Apache-2.0

package collect

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

// learn asks what processes run that were not asked before.
func (c *collector) learn(processes []event.Process) {
	for _, p := range processes {
		id := processID{p.PID, p.Start}
		if c.programs[id] != nil || len(c.programs) >= maxPrograms {
			continue
		}
		program, err := thread.ProgramOf("/proc", p.PID, p.Start)
		if err != nil {
			c.session.Log.Debug("ask what a process runs", "pid", p.PID, "error", err)
			continue
		}
		c.programs[id] = &program
	}
}

// tell returns the processes with what they run; the slice may be shared, and is left alone.
func (c *collector) tell(processes []event.Process) []event.Process {
	c.learn(processes)
	processes = slices.Clone(processes)
	for i := range processes {
		p := &processes[i]
		program := c.programs[processID{p.PID, p.Start}]
		if program == nil {
			continue
		}
		if c.stacks != nil && program.Language == "" {
			program.Language = c.stacks.language(p.PID)
		}
		if *program != (event.Software{}) {
			p.Program = program
		}
	}
	return processes
}
