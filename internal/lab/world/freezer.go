// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// frozen is a cgroup whose processes do not run: file and text let them.
type frozen struct{ file, thaw string }

// Close lets them run again: before, nobody could end them.
func (f frozen) Close() error {
	if err := os.WriteFile(f.file, []byte(f.thaw), 0); err != nil {
		return fmt.Errorf("thaw a cgroup: %w", err)
	}
	return nil
}

// Freeze moves a process to a cgroup of its own, of version 1 or 2, and freezes that. The World's
// Close thaws it, and removes it. The error wraps [ErrCannotHold] where no such hierarchy is
// mounted.
func (w *World) Freeze(pid int, second bool) error {
	root, err := freezerHierarchy(second)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, fmt.Sprintf("synspy-lab-freezer-%d-%d", os.Getpid(), w.NetNS()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("%w: it needs a cgroup that can be frozen: %w", ErrCannotHold,
			err)
	}
	w.keepLongest(limited(dir))
	file, freeze, thaw := "freezer.state", "FROZEN", "THAWED"
	if second {
		file, freeze, thaw = "cgroup.freeze", "1", "0"
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)),
		0); err != nil {
		return fmt.Errorf("%w: it needs a cgroup that can be frozen: %w", ErrCannotHold,
			err)
	}
	w.Keep(frozen{filepath.Join(dir, file), thaw})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(freeze), 0); err != nil {
		return fmt.Errorf("%w: it needs a cgroup that can be frozen: %w", ErrCannotHold,
			err)
	}
	return nil
}

// freezerHierarchy finds where cgroups of a version that can be frozen are mounted.
func freezerHierarchy(second bool) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line) // device, directory, type, options
		if len(f) < 4 {
			continue
		}
		if second && f[2] == "cgroup2" || !second && f[2] == "cgroup" &&
			slices.Contains(strings.Split(f[3], ","), "freezer") {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%w: it needs a mounted cgroup hierarchy of this version that can be frozen", ErrCannotHold)
}
