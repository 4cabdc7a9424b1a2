// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fileID distinguishes files of one machine, as /proc/PID/maps shows them.
type fileID struct {
	device string
	inode  uint64
}

// openMapped opens the file behind a mapping, which may be deleted, or in a container. Without the
// right to follow /proc/PID/map_files it is looked for by name inside the process's root.
func openMapped(proc, root *os.File, m *mapping) (*os.File, error) {
	name := fmt.Sprintf("map_files/%x-%x", m.start, m.end)
	fd, err := unix.Openat(int(proc.Fd()), name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		var byName error
		if fd, byName = findMapped(root, m); byName != nil {
			return nil, errors.Join(err, byName)
		}
	}
	defer unix.Close(fd)
	if _, err := plainFile(fd); err != nil {
		return nil, err
	}
	return reopen(fd)
}

// findMapped looks for a mapped file by its name in a process's root, out of which no link leads.
// Links there may be, such as /lib, but the file must be the one that is mapped, and no other that
// came to its name.
func findMapped(root *os.File, m *mapping) (int, error) {
	if root == nil {
		return -1, errors.New("the process's root is not known")
	}
	fd, err := unix.Openat2(int(root.Fd()), strings.TrimPrefix(m.path, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: m.path, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (fileID{m.device, m.inode}) != idOf(&st) {
		err = fmt.Errorf("open %s: another file has its name", m.path)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// idOf is as the kernel writes it in /proc/PID/maps (show_vma_header_prefix).
func idOf(st *unix.Stat_t) fileID {
	return fileID{fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev)), st.Ino}
}
