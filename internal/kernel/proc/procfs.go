// SPDX-License-Identifier: Apache-2.0

// Package proc reads processes by /proc, each through its own directory, so that nothing is read of
// another one that has its number by then.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
)

// NsPerTick is a clock tick of /proc/PID/stat. USER_HZ is 100 on every
// architecture synspy runs on.
const NsPerTick = 10_000_000

// ErrOtherProcess says that a process is gone, and its number another's.
var ErrOtherProcess = errors.New("the PID is another process's now")

// FS reads processes. Paths below a PID are opened relative to its
// directory, which the kernel ties to that very process: once it is gone they
// fail, whoever has the PID then. (prometheus/procfs opens whole paths, and would read that one.)
type FS struct {
	Root   string
	bootNs int64 // what this time namespace adds to the boot clock
	Mounts cgroup.Mounts
	Own    []cgroup.Membership // the cgroups that synspy is in
}

// Status is what is read of /proc/PID/stat.
type Status struct {
	Comm  string
	Start uint64 // clock ticks since boot
}

// New reads what its readings need of this process: mounts, cgroups and time namespace.
func New(root string, log *slog.Logger) *FS {
	p := &FS{Root: root}
	if b, err := os.ReadFile(filepath.Join(root, "self/timens_offsets")); err == nil {
		p.bootNs = bootOffset(b)
	}
	b, err := os.ReadFile(filepath.Join(root, "self/mountinfo"))
	if err != nil {
		log.Warn("reading the mounts: cgroups have no ids", "err", err)
	}
	p.Mounts = cgroup.ParseMounts(b)
	if b, err := os.ReadFile(filepath.Join(root, "self/cgroup")); err == nil {
		p.Own = cgroup.ParseMemberships(b)
	}
	return p
}

// bootOffset reads "boottime SECONDS NANOSECONDS". The kernel adds it to the
// start times that it shows here (timens_add_boottime_ns), not to those that
// BPF programs read.
func bootOffset(offsets []byte) int64 {
	for line := range strings.Lines(string(offsets)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "boottime" {
			sec, _ := strconv.ParseInt(f[1], 10, 64)
			ns, _ := strconv.ParseInt(f[2], 10, 64)
			return sec*1e9 + ns
		}
	}
	return 0
}

// Ticks converts task->start_boottime as proc_pid_stat does (nsec_to_clock_t).
func (p *FS) Ticks(startNs uint64) uint64 {
	if startNs == 0 {
		return 0
	}
	return uint64(int64(startNs)+p.bootNs) / NsPerTick
}

// Open opens a process's directory, or a task's.
func (p *FS) Open(pid uint32) (int, error) {
	name := filepath.Join(p.Root, strconv.FormatUint(uint64(pid), 10))
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Stat returns the process's name and start time.
func (p *FS) Stat(pid uint32) (Status, error) {
	dir, err := p.Open(pid)
	if err != nil {
		return Status{}, err
	}
	defer unix.Close(dir)
	return StatAt(dir)
}

// CgroupOf returns the cgroup of the process that started at the given tick,
// nil where it is in none.
func (p *FS) CgroupOf(pid uint32, start uint64) (*event.Cgroup, error) {
	dir, err := p.Open(pid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	st, err := StatAt(dir)
	if err != nil {
		return nil, err
	}
	if st.Start != start {
		return nil, fmt.Errorf("process %d: %w", pid, ErrOtherProcess)
	}
	b, err := ReadAt(dir, LiveThread(dir)+"cgroup")
	if err != nil {
		return nil, err
	}
	return p.Mounts.Choose(cgroup.ParseMemberships(b)), nil
}

// Holds reports whether the process has the socket with that inode open.
func (p *FS) Holds(pid uint32, inode uint64) bool {
	found := false
	err := p.Sockets(pid, func(i uint64) bool {
		found = i == inode
		return !found
	})
	return err == nil && found
}

// Sockets calls f with the inode of each socket the process has open, once per
// descriptor, until f returns false.
func (p *FS) Sockets(pid uint32, f func(inode uint64) bool) error {
	dir := filepath.Join(p.Root, strconv.FormatUint(uint64(pid), 10), "fd")
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	fd := int(d.Fd())
	buf := make([]byte, 64) // of "socket:[18446744073709551615]", more is none
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			n, err := unix.Readlinkat(fd, name, buf)
			if err != nil {
				continue // closed meanwhile
			}
			if inode, ok := SocketInode(buf[:n]); ok && !f(inode) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// SocketInode reads what a link to a socket says, "socket:[INODE]".
func SocketInode(link []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	rest, ok = bytes.CutSuffix(rest, []byte("]"))
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(rest), 10, 64)
	return inode, err == nil
}

// StatAt reads the stat of an open process's directory.
func StatAt(dir int) (Status, error) {
	b, err := ReadAt(dir, "stat")
	if err != nil {
		return Status{}, err
	}
	return ParseStat(b)
}

// ParseStat takes the name, which may hold anything, ")" and newlines too, and
// field 22.
func ParseStat(b []byte) (Status, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Status{}, errors.New("parse stat: no name")
	}
	f := bytes.Fields(b[end+1:]) // from field 3
	if len(f) < 20 {
		return Status{}, errors.New("parse stat: too few fields")
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return Status{}, fmt.Errorf("parse stat: start time: %w", err)
	}
	return Status{string(b[open+1 : end]), start}, nil
}

// MaxText is how much of a file is read, in bytes.
const MaxText = 256 << 10

// ReadAt reads a small file below a directory. Files of /proc have no size.
func ReadAt(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 1024) // most of them are smaller, and come at once
	for len(text) < MaxText {
		if len(text) == cap(text) {
			text = slices.Grow(text, len(text))
		}
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return text, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			break
		}
		text = text[:len(text)+n]
	}
	return text[:min(len(text), MaxText)], nil
}

// LiveThread is the path, below the process's directory, of a thread that has not ended: empty
// where that is the first one. One that ended has let go of its memory and, as version 1 has it, of
// its cgroup.
func LiveThread(dir int) string {
	if !ended(dir, "stat") {
		return ""
	}
	tids, err := ThreadsOf(dir)
	if err != nil {
		return ""
	}
	for _, tid := range tids {
		thread := fmt.Sprintf("task/%d/", tid)
		if !ended(dir, thread+"stat") {
			return thread
		}
	}
	return ""
}

// Nanoseconds is the inverse of ticks.
func (p *FS) Nanoseconds(ticks uint64) uint64 {
	return uint64(int64(ticks*NsPerTick) - p.bootNs)
}

// ended reports whether the task of that stat is a zombie or dead.
func ended(dir int, name string) bool {
	text, err := ReadAt(dir, name)
	if err != nil {
		return true
	}
	end := bytes.LastIndexByte(text, ')')
	return end < 0 || end+2 >= len(text) || text[end+2] == 'Z' || text[end+2] == 'X'
}

// ThreadsOf lists a process's threads, ascending.
func ThreadsOf(dir int) ([]uint32, error) {
	fd, err := unix.Openat(dir, "task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "task", Err: err}
	}
	d := os.NewFile(uintptr(fd), "task")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil && len(names) == 0 {
		return nil, err
	}
	tids := make([]uint32, 0, len(names))
	for _, name := range names {
		if tid, err := strconv.ParseUint(name, 10, 32); err == nil {
			tids = append(tids, uint32(tid))
		}
	}
	slices.Sort(tids)
	return tids, nil
}
