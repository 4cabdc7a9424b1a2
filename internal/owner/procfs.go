// SPDX-License-Identifier: Apache-2.0

package owner

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

	"github.com/synspy/synspy/internal/event"
	"golang.org/x/sys/unix"
)

// nsPerTick is a clock tick of /proc/PID/stat. USER_HZ is 100 on every
// architecture synspy runs on.
const nsPerTick = 10_000_000

var errOtherProcess = errors.New("the PID is another process's now")

// procfs reads processes. Paths below a PID are opened relative to its
// directory, which the kernel ties to that very process: once it is gone they
// fail, whoever has the PID then.
type procfs struct {
	root   string
	bootNs int64 // what this time namespace adds to the boot clock
	mounts cgroupMounts
	own    []membership // the cgroups that synspy is in
}

type stat struct {
	comm  string
	start uint64 // clock ticks since boot
}

func newProcfs(root string, log *slog.Logger) *procfs {
	p := &procfs{root: root}
	if b, err := os.ReadFile(filepath.Join(root, "self/timens_offsets")); err == nil {
		p.bootNs = bootOffset(b)
	}
	b, err := os.ReadFile(filepath.Join(root, "self/mountinfo"))
	if err != nil {
		log.Warn("reading the mounts: cgroups have no ids", "err", err)
	}
	p.mounts = parseMounts(b)
	if b, err := os.ReadFile(filepath.Join(root, "self/cgroup")); err == nil {
		p.own = parseMemberships(b)
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

// ticks converts task->start_boottime as proc_pid_stat does (nsec_to_clock_t).
func (p *procfs) ticks(startNs uint64) uint64 {
	if startNs == 0 {
		return 0
	}
	return uint64(int64(startNs)+p.bootNs) / nsPerTick
}

func (p *procfs) open(pid uint32) (int, error) {
	name := filepath.Join(p.root, strconv.FormatUint(uint64(pid), 10))
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// stat returns the process's name and start time.
func (p *procfs) stat(pid uint32) (stat, error) {
	dir, err := p.open(pid)
	if err != nil {
		return stat{}, err
	}
	defer unix.Close(dir)
	return statAt(dir)
}

// cgroupOf returns the cgroup of the process that started at the given tick,
// nil where it is in none.
func (p *procfs) cgroupOf(pid uint32, start uint64) (*event.Cgroup, error) {
	dir, err := p.open(pid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	st, err := statAt(dir)
	if err != nil {
		return nil, err
	}
	if st.start != start {
		return nil, fmt.Errorf("process %d: %w", pid, errOtherProcess)
	}
	b, err := readAt(dir, liveThread(dir)+"cgroup")
	if err != nil {
		return nil, err
	}
	return p.mounts.choose(parseMemberships(b)), nil
}

// holds tells whether the process has the socket with that inode open.
func (p *procfs) holds(pid uint32, inode uint64) bool {
	found := false
	err := p.sockets(pid, func(i uint64) bool {
		found = i == inode
		return !found
	})
	return err == nil && found
}

// sockets calls f with the inode of each socket the process has open, once per
// descriptor, until f returns false.
func (p *procfs) sockets(pid uint32, f func(inode uint64) bool) error {
	dir := filepath.Join(p.root, strconv.FormatUint(uint64(pid), 10), "fd")
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
			if inode, ok := socketInode(buf[:n]); ok && !f(inode) {
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

func socketInode(link []byte) (uint64, bool) {
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

func statAt(dir int) (stat, error) {
	b, err := readAt(dir, "stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat takes the name, which may hold anything, ")" and newlines too, and
// field 22.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("parse stat: no name")
	}
	f := bytes.Fields(b[end+1:]) // from field 3
	if len(f) < 20 {
		return stat{}, errors.New("parse stat: too few fields")
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("parse stat: start time: %w", err)
	}
	return stat{string(b[open+1 : end]), start}, nil
}

// maxText is how much of a file is read, in bytes.
const maxText = 256 << 10

// readAt reads a small file below a directory. Files of /proc have no size.
func readAt(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 1024) // most of them are smaller, and come at once
	for len(text) < maxText {
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
	return text[:min(len(text), maxText)], nil
}
