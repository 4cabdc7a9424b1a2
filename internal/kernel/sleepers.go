// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InAccept is a thread that is asleep in accept().
type InAccept struct {
	TID   uint32
	Inode uint64 // of the socket that it accepts from
}

// SleepersInAccept lists those of a process. What cannot be read is left out.
func SleepersInAccept(pid uint32) (list []InAccept) {
	process := filepath.Join("/proc", strconv.FormatUint(uint64(pid), 10))
	threads, err := os.ReadDir(filepath.Join(process, "task"))
	if err != nil {
		return nil
	}
	for _, thread := range threads {
		tid, err := strconv.ParseUint(thread.Name(), 10, 32)
		if err != nil {
			continue
		}
		if inode := acceptsFrom(process, thread.Name()); inode != 0 {
			list = append(list, InAccept{uint32(tid), inode})
		}
	}
	return list
}

// StillInAccept reports whether a thread that was listed still is.
func StillInAccept(pid uint32, sleeper InAccept) bool {
	return acceptsFrom(filepath.Join("/proc", strconv.FormatUint(uint64(pid), 10)),
		strconv.FormatUint(uint64(sleeper.TID), 10)) == sleeper.Inode
}

// acceptsFrom is the inode of the socket that a thread accepts from; 0 if it does not.
func acceptsFrom(process, thread string) uint64 {
	text, err := os.ReadFile(filepath.Join(process, "task", thread, "syscall"))
	if err != nil {
		return 0
	}
	fd, ok := acceptedFile(string(text))
	if !ok {
		return 0
	}
	target, err := os.Readlink(filepath.Join(process, "fd", strconv.FormatUint(fd, 10)))
	if err != nil {
		return 0
	}
	number, ok := strings.CutPrefix(target, "socket:[")
	if !ok {
		return 0
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	if err != nil {
		return 0
	}
	return inode
}

// acceptedFile is the first argument of accept(), if a thread's syscall file shows one: its number,
// and the arguments in hexadecimal.
func acceptedFile(syscall string) (fd uint64, ok bool) {
	fields := strings.Fields(syscall)
	if len(fields) < 2 || fields[0] != strconv.Itoa(unix.SYS_ACCEPT) &&
		fields[0] != strconv.Itoa(unix.SYS_ACCEPT4) {
		return 0, false
	}
	fd, err := strconv.ParseUint(fields[1], 0, 32)
	return fd, err == nil
}
