// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"github.com/synspy/synspy/internal/kernel/proc"
)

// ScanProc finds sockets and who holds them by reading every /proc/PID/fd, for
// kernels where the task_file iterator is refused. It is slower than that by
// far, and must be allowed to read other users' descriptors. Only inodes that
// wanted accepts are listed, nil accepts all; once per process however many
// descriptors it has. Holders have no Socket: [Table.Replace] finds it by the
// inode. Unreadable is how many processes refused to be read.
func ScanProc(procRoot string, wanted func(inode uint64) bool) (holders []Holder, unreadable int,
	err error) {
	dir, err := os.Open(procRoot)
	if err != nil {
		return nil, 0, fmt.Errorf("scan processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, 0, fmt.Errorf("scan processes: %w", err)
	}
	p := proc.New(procRoot, slog.New(slog.DiscardHandler))
	seen := make(map[uint64]bool)
	for _, name := range names {
		pid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		clear(seen)
		before, err := p.Stat(uint32(pid))
		if err != nil {
			continue // gone
		}
		err = p.Sockets(uint32(pid), func(inode uint64) bool {
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
		if after, err := p.Stat(uint32(pid)); err != nil || after.Start != before.Start {
			continue // the descriptors may be another process's
		}
		for inode := range seen {
			holders = append(holders, Holder{
				Inode: inode, PID: uint32(pid), Comm: before.Comm,
				StartNs: p.Nanoseconds(before.Start),
			})
		}
	}
	return holders, unreadable, nil
}
