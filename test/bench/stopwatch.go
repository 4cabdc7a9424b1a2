// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

// stopwatch counts the instructions that a machine executes while it runs: in a virtual
// machine with -icount each takes a nanosecond of the guest's clock, and nothing else does.
type stopwatch struct {
	started time.Time
	total   time.Duration
	laps    int
	// around are called outside of what is counted, if not nil.
	beforeLap, afterLap func() error
}

// lap counts what f executes.
func (w *stopwatch) lap(f func() error) error {
	if w.beforeLap != nil {
		if err := w.beforeLap(); err != nil {
			return err
		}
	}
	w.started = time.Now()
	err := f()
	w.total += time.Since(w.started)
	w.laps++
	if err == nil && w.afterLap != nil {
		err = w.afterLap()
	}
	return err
}

// lapCost is how many instructions an empty lap counts.
func lapCost() float64 {
	var w stopwatch
	for range 1000 {
		_ = w.lap(func() error { return nil })
	}
	return float64(w.total) / float64(w.laps)
}

// within runs f in the world's namespace, on a thread of its own.
func within(world *world.World, f func() error) error {
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

// alone runs f in the target's namespace, and lets no other thread of user space run until it
// sleeps: what a tracer's process does is no part of what a packet pays.
func (t *target) alone(f func() error) error {
	return within(t.world, func() error {
		err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO,
			Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1}, 0)
		if err != nil {
			return fmt.Errorf("keep the CPU: %w", err)
		}
		return f()
	})
}

// letKeep has the kernel let a thread keep the CPU.
func letKeep() error {
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
