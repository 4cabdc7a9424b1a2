// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// HostProcesses is what a container takes to see the machine's processes.
const HostProcesses = "the host's PID namespace (hostPID: true of the pod, --pid=host of the container)"

// UnseenProcesses says which processes are not to be seen here, and what it takes; both are empty
// where all are.
func UnseenProcesses() (what, takes string) {
	if !kernel.SeesAllProcesses() {
		return "processes outside of this PID namespace", HostProcesses
	}
	if !kernel.ShowsAllProcesses() {
		return "other users' processes, which /proc hides (" + kernel.HiddenProcesses() +
			")", "CAP_SYS_PTRACE"
	}
	return "", ""
}

// Refusals is the evidence of processes that was refused, by process.
type Refusals map[uint32][]evidence.Gap

// evidenceIn says what the files below /proc/PID are evidence of.
var evidenceIn = map[string]struct {
	need evidence.Need
	why  string
}{
	"syscall": {evidence.NeedCalls, "the system calls of this process's threads are refused"},
	"fd":      {evidence.NeedCalls, "the open files of this process are refused"},
	"fdinfo":  {evidence.NeedCalls, "the open files of this process are refused"},
	"stack": {evidence.NeedStacks,
		"the kernel stacks of this process's threads are refused"},
	"schedstat": {evidence.NeedCPU, "how long this process's threads ran is refused"},
}

// Files notes the files of a process that could not be read.
func (r Refusals) Files(pid uint32, refused map[string]error) {
	for file, err := range refused {
		in, known := evidenceIn[file]
		if known && !r.has(pid, in.need) {
			r.add(pid, in.need, in.why, kernel.RefusedFile(file, err))
		}
	}
}

// Process notes that nothing of a process could be read. One that has ended refuses nothing.
func (r Refusals) Process(pid uint32, err error) {
	if r.has(pid, evidence.NeedThreads) {
		return
	}
	by := kernel.RefusedFile("stat", err)
	if errors.Is(err, fs.ErrNotExist) {
		by = kernel.HiddenProcess(pid)
	}
	for _, need := range []evidence.Need{evidence.NeedThreads, evidence.NeedCalls} {
		r.add(pid, need, "what this process does is hidden", by)
	}
}

func (r Refusals) has(pid uint32, need evidence.Need) bool {
	return slices.ContainsFunc(r[pid], func(g evidence.Gap) bool { return g.Need == need })
}

func (r Refusals) add(pid uint32, need evidence.Need, why string, by []string) {
	if len(by) > 0 {
		r[pid] = append(r[pid],
			evidence.Gap{Need: need, Why: why, By: by, PIDs: []uint32{pid}})
	}
}

// Of lists what was refused of these processes, those of which the same was as one.
func (r Refusals) Of(processes []event.Process) (all []evidence.Gap) {
	for _, p := range processes {
		for _, g := range r[p.PID] {
			i := slices.IndexFunc(all,
				func(o evidence.Gap) bool {
					return o.Need == g.Need &&
						slices.Equal(o.By, g.By)
				})
			if i >= 0 {
				all[i].PIDs = append(all[i].PIDs, p.PID)
				continue
			}
			g.PIDs = slices.Clone(g.PIDs)
			all = append(all, g)
		}
	}
	return all
}

// EnteringTakes names what it takes to enter a network namespace through a process, where err says
// that it was refused.
func EnteringTakes(err error) []string {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return kernel.Powers(unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN)
	}
	if by := kernel.Exhausted(err); by != "" {
		return []string{by}
	}
	return nil
}

// NeedsPtrace is the remedy where another user's process may not be asked.
func NeedsPtrace() string { return NeedsPowers("other users' processes take", unix.CAP_SYS_PTRACE) }

// NeedsPowers is the remedy where something that takes these capabilities was refused: those that
// are missing.
func NeedsPowers(what string, bits ...uint) string {
	names := kernel.Powers(bits...)
	if len(names) == 0 { // refused all the same
		names = []string{"what a security module does not allow"}
	}
	text := what + " " + strings.Join(names, " and ")
	if os.Geteuid() == 0 {
		return text + ", which root lacks here"
	}
	return text + ": run it with sudo"
}
