// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
)

// testRunOnCPU is BPF_F_TEST_RUN_ON_CPU.
const testRunOnCPU = 1

// OnEachCPU calls f once per online CPU, on a thread pinned to it where that is
// allowed. f gets a way to run the snapshot program there.
func (o *Objects) OnEachCPU(f func(cpu int, run Runner) error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is thrown away with its affinity.
		runtime.LockOSThread()
		for _, cpu := range o.Online {
			var set unix.CPUSet
			set.Set(cpu)
			run := Runner{program: o.Collection.Programs["snapshot"], cpu: cpu}
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				// Our cpuset leaves this CPU out: be called there by an interrupt.
				run.flags = testRunOnCPU
			}
			if err := f(cpu, run); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return <-done
}

// Runner runs the snapshot program on one CPU.
type Runner struct {
	program *ebpf.Program
	cpu     int
	flags   uint32
}

// Ask runs one request of enum request in bpf/event.h.
func (r Runner) Ask(request bpf.SynspyRequest, arg uint64, ns Namespace) (bpf.SynspyAnswer, error) {
	options := &ebpf.RunOptions{Context: [4]uint64{uint64(request), arg, ns.Net,
		uint64(ns.Inode)}, Flags: r.flags}
	if r.flags != 0 {
		options.CPU = uint32(r.cpu)
	}
	answer, err := r.program.Run(options)
	if err != nil {
		return 0, fmt.Errorf("run on CPU %d: %w", r.cpu, err)
	}
	return bpf.SynspyAnswer(answer), nil
}

// Under traffic a reading may be disturbed; each try is a few microseconds.
const (
	snapshotTries = 1000
	snapshotPause = 50 * time.Microsecond
)

// Snapshot reads one namespace on one CPU; ok is false when it is gone.
func (o *Objects) Snapshot(run Runner, ns Namespace) (shot bpf.SynspySnapshot, ok bool, err error) {
	for range snapshotTries {
		answer, err := run.Ask(bpf.SynspyRequestREQUEST_SNAPSHOT, ns.ID, ns)
		if err != nil {
			return shot, false, err
		}
		switch answer {
		case bpf.SynspyAnswerANSWER_GONE:
			return shot, false, nil
		case bpf.SynspyAnswerANSWER_DONE:
		default:
			return shot, false, fmt.Errorf("read counters of namespace %d on CPU %d: not tracked", ns.Inode, run.cpu)
		}
		if err := o.Collection.Maps["snapshots"].Lookup(uint32(0), &shot); err != nil {
			return shot, false, fmt.Errorf("read snapshot: %w", err)
		}
		if shot.Stable == 1 {
			return shot, true, nil
		}
		time.Sleep(snapshotPause)
	}
	return shot, false, fmt.Errorf("read counters of namespace %d on CPU %d: never at rest",
		ns.Inode, run.cpu)
}

// AnyCPU runs what does not depend on the CPU.
func (o *Objects) AnyCPU() Runner { return Runner{program: o.Collection.Programs[snapshotProgram]} }
