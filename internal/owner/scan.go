// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
)

// ScanProc finds sockets and who holds them by reading every /proc/PID/fd, for
// kernels where the task_file iterator is refused. It is slower than that by
// far, and must be allowed to read other users' descriptors. Only inodes that
// wanted accepts are listed, nil accepts all; once per process however many
// descriptors it has. Holders have no Socket: [Table.Replace] finds it by the
// inode. Unreadable is how many processes refused to be read.
func ScanProc(procRoot string, wanted func(inode uint64) bool) (holders []Holder, unreadable int, err error) {
	dir, err := os.Open(procRoot)
	if err != nil {
		return nil, 0, fmt.Errorf("scan processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, 0, fmt.Errorf("scan processes: %w", err)
	}
	p := newProcfs(procRoot, slog.New(slog.DiscardHandler))
	seen := make(map[uint64]bool)
	for _, name := range names {
		pid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		clear(seen)
		before, err := p.stat(uint32(pid))
		if err != nil {
			continue // gone
		}
		err = p.sockets(uint32(pid), func(inode uint64) bool {
			if wanted == nil || wanted(inode) {
				seen[inode] = true
			}
			return true
		})
		if os.IsPermission(err) {
			unreadable++
		}
		if len(seen) == 0 {
			continue
		}
		if after, err := p.stat(uint32(pid)); err != nil || after.start != before.start {
			continue // the descriptors may be another process's
		}
		for inode := range seen {
			holders = append(holders, Holder{
				Inode: inode, PID: uint32(pid), Comm: before.comm, StartNs: p.nanoseconds(before.start),
			})
		}
	}
	return holders, unreadable, nil
}

// nanoseconds is the inverse of ticks.
func (p *procfs) nanoseconds(ticks uint64) uint64 {
	return uint64(int64(ticks*nsPerTick) - p.bootNs)
}
