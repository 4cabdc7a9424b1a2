// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Exhausted names the limit of this process or machine that an error tells of; empty for another
// error.
func Exhausted(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		return MoreFiles()
	case errors.Is(err, unix.ENFILE):
		return "a higher fs.file-max"
	case errors.Is(err, unix.ENOMEM):
		return moreMemory("/proc/self/cgroup", "/sys/fs/cgroup")
	}
	return ""
}

// MoreFiles names this process's own limit of open files.
func MoreFiles() string {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return "a higher RLIMIT_NOFILE for synspy"
	}
	return fmt.Sprintf("a higher RLIMIT_NOFILE for synspy (now %d: ulimit -n 1024, LimitNOFILE= of its unit)", limit.Cur)
}

// SpareFiles is how many more files this process may open.
func SpareFiles() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxUint64
	}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil { // not even this one
		return 0
	}
	return limit.Cur - min(limit.Cur, uint64(len(names)))
}

// moreMemory names the limit of this process's memory cgroup, where it has one: what the maps of
// programs take is charged to it since 5.11.
func moreMemory(memberships, mount string) string {
	text, err := os.ReadFile(memberships)
	if err != nil {
		return "more memory"
	}
	least, whose := uint64(math.MaxInt64)>>12<<12, "" // what v1 shows for none
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		tops, file := []string{mount, filepath.Join(mount, "unified")}, "memory.max"
		if slices.Contains(strings.Split(f[1], ","), "memory") {
			tops, file = []string{filepath.Join(mount, "memory")},
				"memory.limit_in_bytes"
		} else if f[1] != "" {
			continue
		}
		for path := filepath.Clean("/" + f[2]); ; path = filepath.Dir(path) {
			for _, top := range tops {
				name := filepath.Join(top, path, file)
				text, _ := os.ReadFile(name)
				if limit, err := strconv.ParseUint(strings.TrimSpace(string(text)),
					10, 64); err == nil && limit < least {
					least, whose = limit, name
				}
			}
			if path == "/" {
				break
			}
		}
	}
	if whose == "" {
		return "more memory than this machine has free"
	}
	return fmt.Sprintf("more memory for synspy's cgroup (now %d MiB, in %s; MemoryMax= of its unit, resources.limits.memory of its pod)", least>>20, whose)
}
