// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// stdoutClosed reports whether the process was started without a standard output. Go's runtime
// opens /dev/null for reading and writing in its place (runtime.checkfds), which hardly anybody
// else does; who does mostly gives the same file for other descriptors, or has it himself.
func stdoutClosed() bool {
	mode, err := unix.FcntlInt(1, unix.F_GETFL, 0)
	if err != nil {
		return true
	}
	var out, null unix.Stat_t
	if unix.Fstat(1, &out) != nil || unix.Stat("/dev/null", &null) != nil {
		return false
	}
	if mode&unix.O_ACCMODE != unix.O_RDWR || out.Mode&unix.S_IFMT != unix.S_IFCHR ||
		out.Rdev != null.Rdev {
		return false
	}
	self, parent := os.Getpid(), os.Getppid()
	return !sameFile(self, 0) && !sameFile(self, 2) && !sameFile(parent, 0) &&
		!sameFile(parent, 1) && !sameFile(parent, 2)
}

// sameFile reports whether a process's descriptor is our standard output, by one and the same
// opening.
func sameFile(pid, fd int) bool {
	const kcmpFile = 0 // KCMP_FILE
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(os.Getpid()),
		kcmpFile, uintptr(fd), 1, 0)
	return errno == 0 && order == 0
}

// leavesElsewhere reports whether a run leaves more than what it says: files, or an exit code that
// is asked for.
func leavesElsewhere(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		flag, _, _ := strings.Cut(arg, "=")
		return slices.Contains([]string{"--write", "--report", "--exit-code"}, flag)
	})
}
