// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// limited is a cgroup with a CPU quota or weight, of either version.
type limited string

// LimitCPU moves a process to a cgroup of its own that may use quota of each period.
// The World's Close removes it. The error wraps [ErrCannotHold] where no cgroup
// hierarchy with the CPU controller is mounted.
func (w *World) LimitCPU(pid int, quota, period time.Duration) error {
	return w.cpuGroup(pid,
		[][2]string{{"cpu.cfs_period_us", strconv.FormatInt(period.Microseconds(), 10)},
			{"cpu.cfs_quota_us", strconv.FormatInt(quota.Microseconds(), 10)}},
		[][2]string{{"cpu.max",
			fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds())}})
}

// Favour moves a process to a cgroup of its own that gets a CPU before others do: an incident that
// is not about waiting for one is not to become one on a busy machine. Where it cannot, it does
// nothing.
func (w *World) Favour(pid int) error {
	err := w.cpuGroup(pid, [][2]string{{"cpu.shares", "262144"}},
		[][2]string{{"cpu.weight", "10000"}})
	if errors.Is(err, ErrCannotHold) {
		return nil
	}
	return err
}

// cpuGroup moves a process to a cgroup of its own with these settings, of version 1 or 2.
func (w *World) cpuGroup(pid int, v1, v2 [][2]string) error {
	root, second, err := cpuHierarchy()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, fmt.Sprintf("synspy-lab-%d-%d", os.Getpid(), w.NetNS()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("%w: it needs a cgroup for CPU time: %w", ErrCannotHold, err)
	}
	w.keepLongest(limited(dir)) // the process in it must end first
	files := v1
	if second {
		files = v2
	}
	for _, f := range append(files, [2]string{"cgroup.procs", strconv.Itoa(pid)}) {
		if err := os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]), 0); err != nil {
			return fmt.Errorf("%w: it needs a cgroup for CPU time: %w", ErrCannotHold,
				err)
		}
	}
	return nil
}

// cpuHierarchy finds where cgroups with the CPU controller are mounted.
func cpuHierarchy() (root string, v2 bool, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", false, fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line) // device, directory, type, options
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "cgroup":
			for option := range strings.SplitSeq(f[3], ",") {
				if option == "cpu" {
					return f[1], false, nil
				}
			}
		case "cgroup2":
			controllers, err := os.ReadFile(filepath.Join(f[1], "cgroup.controllers"))
			if err != nil ||
				!strings.Contains(" "+strings.TrimSpace(string(controllers))+" ",
					" cpu ") {
				continue
			}
			if err := os.WriteFile(filepath.Join(f[1], "cgroup.subtree_control"),
				[]byte("+cpu"), 0); err != nil {
				continue
			}
			return f[1], true, nil
		}
	}
	return "", false, fmt.Errorf(
		"%w: it needs a mounted cgroup hierarchy with the CPU controller", ErrCannotHold)
}

// Close removes the cgroup once its processes are gone.
func (l limited) Close() error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(string(l))
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// EachThread calls f with each thread of a process.
func EachThread(pid int, f func(tid int) error) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := f(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}
