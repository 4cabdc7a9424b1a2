// SPDX-License-Identifier: Apache-2.0

// Package cpu says which CPU generates traffic and which reads what is told of it.
package cpu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// The generator has one CPU, the traced kernel code included, and the program
// that reads what the tracer found has the other.
const (
	Reader    = 0
	Generator = 1
)

// PinThread binds the calling thread, which must be locked, to a CPU until release.
func PinThread(cpu int) (release func(), err error) {
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("read CPU affinity: %w", err)
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return nil, fmt.Errorf("bind thread to CPU %d (two are needed): %w", cpu, err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }, nil
}

// PinProcess binds all threads of a process to a CPU. New ones inherit it.
func PinProcess(pid, cpu int) error {
	var only unix.CPUSet
	only.Set(cpu)
	// Twice: a thread may start another one while the first list is being read.
	for range 2 {
		tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
		if err != nil {
			return fmt.Errorf("list threads of process %d: %w", pid, err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return fmt.Errorf("list threads of process %d: %w", pid, err)
			}
			err = unix.SchedSetaffinity(tid, &only)
			if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("bind thread %d to CPU %d: %w", tid, cpu, err)
			}
		}
	}
	return nil
}
