// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel/proc"
)

// Descriptors is how many file descriptors a process has open, and may have.
type Descriptors struct {
	Open  uint64
	Limit uint64 // its soft RLIMIT_NOFILE
	// Full tells that each number below the limit is taken: whatever takes a new one fails with
	// EMFILE.
	Full bool
}

// DescriptorsOf reads them. The start, in clock ticks since boot, must be the process's own unless
// it is 0. Errors are those of /proc/PID/limits and /proc/PID/fd, which take the right to trace the
// process.
func (s *Sampler) DescriptorsOf(pid uint32, start uint64) (Descriptors, error) {
	dir, err := s.proc.Open(pid)
	if err != nil {
		return Descriptors{}, fmt.Errorf("count descriptors: %w", err)
	}
	defer unix.Close(dir)
	st, err := proc.StatAt(dir)
	if err == nil && start != 0 && st.Start != start {
		err = fmt.Errorf("process %d: %w", pid, proc.ErrOtherProcess)
	}
	if err != nil {
		return Descriptors{}, fmt.Errorf("count descriptors: %w", err)
	}
	text, err := proc.ReadAt(dir, "limits")
	if err != nil {
		return Descriptors{}, fmt.Errorf("count descriptors: %w", err)
	}
	d := Descriptors{Limit: parseFileLimit(text)}
	// Since 6.2 the size of the directory is how many there are: then they need not be listed
	// while there are few.
	var size unix.Stat_t
	if err := unix.Fstatat(dir, "fd", &size, 0); err != nil {
		return d, fmt.Errorf("count descriptors: %w",
			&os.PathError{Op: "stat", Path: "fd", Err: err})
	}
	if d.Open = uint64(size.Size); d.Open > 0 && d.Open < d.Limit {
		return d, nil
	}
	below, open, err := countDescriptors(dir, d.Limit)
	d.Open, d.Full = open, err == nil && d.Limit > 0 && below == d.Limit
	return d, err
}

// maxListed is how many descriptors of a process are listed.
const maxListed = 1 << 20

// countDescriptors lists the numbers that are taken, and those below the limit.
func countDescriptors(dir int, limit uint64) (below, all uint64, err error) {
	fd, err := unix.Openat(dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("count descriptors: %w",
			&os.PathError{Op: "open", Path: "fd", Err: err})
	}
	list := os.NewFile(uintptr(fd), "fd")
	defer list.Close()
	for all < maxListed {
		names, err := list.Readdirnames(1024)
		for _, name := range names {
			if n, err := strconv.ParseUint(name, 10, 32); err == nil {
				all++
				if n < limit {
					below++
				}
			}
		}
		if err == io.EOF {
			return below, all, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("count descriptors: %w", err)
		}
	}
	return below, all, nil
}

// parseFileLimit takes the soft limit from the line "Max open files            1024
// 524288               files"; 0 for none.
func parseFileLimit(limits []byte) uint64 {
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseUint(f[0], 10, 64) // "unlimited" cannot be
				return n
			}
		}
	}
	return 0
}

// SocketOf is the inode of the socket that a process has open under a number; 0 where it is none,
// or not known.
func (s *Sampler) SocketOf(pid uint32, fd int32) uint64 {
	dir, err := s.proc.Open(pid)
	if err != nil {
		return 0
	}
	defer unix.Close(dir)
	inode, _ := inodeOfFile(dir, strconv.Itoa(int(fd)))
	return inode
}

// OpenFiles reads how many files the whole system has open, and may have (fs.file-nr); zeros where
// that is not known.
func (s *Sampler) OpenFiles() (open, most uint64) {
	f := strings.Fields(readText(s.proc.Root,
		filepath.Join("sys", "fs", "file-nr"))) // "1952	0	9223372036854775807"
	if len(f) != 3 {
		return 0, 0
	}
	open, _ = strconv.ParseUint(f[0], 10, 64)
	most, _ = strconv.ParseUint(f[2], 10, 64)
	return open, most
}
