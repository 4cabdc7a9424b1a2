// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// What an observed process names, it may have made to be anything: a link to a file that only root
// may read, a pipe, a device, a file of the kernel whose reading has effects. So it is looked at by
// a descriptor that opens nothing (O_PATH), and then that very file is opened.

var (
	errNotRegular = errors.New("not a regular file")
	errKernelFile = errors.New("a file of the kernel's")
)

// kernelFilesystems are those whose files are made by the kernel as they are read: some are emptied
// by that, some hold readers up.
var kernelFilesystems = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.TRACEFS_MAGIC, unix.DEBUGFS_MAGIC,
	unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC,
	unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
	unix.NSFS_MAGIC, unix.SELINUX_MAGIC,
	unix.SMACK_MAGIC, unix.BINFMTFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.AUTOFS_SUPER_MAGIC,
}

// plainFile is what a descriptor leads to, if that is a file that is kept somewhere.
func plainFile(fd int) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return st, fmt.Errorf("look at file: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return st, errNotRegular
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return st, fmt.Errorf("look at file: %w", err)
	}
	if slices.Contains(kernelFilesystems, fs.Type) {
		return st, errKernelFile
	}
	return st, nil
}

// reopen opens for reading what a descriptor leads to, whatever its name leads to by now.
func reopen(fd int) (*os.File, error) {
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	own, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(own), name), nil
}

// openAt opens a file of a process's directory below /proc.
func openAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
