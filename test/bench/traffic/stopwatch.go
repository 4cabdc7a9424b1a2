// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

// Stopwatch counts the instructions that a machine executes while it runs: in a virtual
// machine with -icount each takes a nanosecond of the guest's clock, and nothing else does.
type Stopwatch struct {
	started time.Time
	Total   time.Duration
	Laps    int
	// around are called outside of what is counted, if not nil.
	BeforeLap, AfterLap func() error
}

// Lap counts what f executes.
func (w *Stopwatch) Lap(f func() error) error {
	if w.BeforeLap != nil {
		if err := w.BeforeLap(); err != nil {
			return err
		}
	}
	w.started = time.Now()
	err := f()
	w.Total += time.Since(w.started)
	w.Laps++
	if err == nil && w.AfterLap != nil {
		err = w.AfterLap()
	}
	return err
}

// LapCost is how many instructions an empty lap counts.
func LapCost() float64 {
	var w Stopwatch
	for range 1000 {
		_ = w.Lap(func() error { return nil })
	}
	return float64(w.Total) / float64(w.Laps)
}

// Within runs f in the world's namespace, on a thread of its own.
func Within(world *world.World, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this
		done <- func() error {
			ns, err := os.Open(world.Path())
			if err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

// Alone runs f in the target's namespace, and lets no other thread of user space run until it
// sleeps: what a tracer's process does is no part of what a packet pays.
func (t *Target) Alone(f func() error) error {
	return Within(t.World, func() error {
		err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO,
			Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1}, 0)
		if err != nil {
			return fmt.Errorf("keep the CPU: %w", err)
		}
		return f()
	})
}

// LetKeep has the kernel let a thread keep the CPU.
func LetKeep() error {
	if err := os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0); err != nil {
		return fmt.Errorf("let a thread keep the CPU: %w", err)
	}
	// Since 6.12 other tasks get a twentieth of the time nevertheless.
	servers, err := filepath.Glob("/sys/kernel/debug/sched/fair_server/cpu*/runtime")
	if err != nil {
		return err
	}
	for _, server := range servers {
		if err := os.WriteFile(server, []byte("0"), 0); err != nil {
			return fmt.Errorf("let a thread keep the CPU: %w", err)
		}
	}
	return nil
}
