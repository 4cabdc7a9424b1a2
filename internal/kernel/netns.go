// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoNetNS says that a --netns argument names no network namespace.
var ErrNoNetNS = errors.New("no such network namespace")

// named is where ip netns keeps namespaces.
const named = "/run/netns"

// FindNetNS returns the inode of the network namespace that arg names: a name
// under /run/netns, a path, an inode, or a PID. A number above pid_max is an
// inode.
func FindNetNS(arg string) (uint64, error) {
	number, err := strconv.ParseUint(arg, 10, 64)
	switch {
	case err == nil && number > pidMax():
		return number, findInode(number)
	case err == nil:
		return netnsInode(fmt.Sprintf("/proc/%d/ns/net", number), arg)
	case strings.Contains(arg, "/"):
		return netnsInode(arg, arg)
	default:
		return netnsInode(filepath.Join(named, arg), arg)
	}
}

// netnsInode checks that the path is a network namespace before it believes it.
func netnsInode(path, arg string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		if by := RefusedFile("ns", err); len(by) > 0 {
			return 0, fmt.Errorf("open network namespace %q: it takes %s: %w", arg,
				strings.Join(by, " and "), err)
		}
		return 0, fmt.Errorf("%w: %q: %w", ErrNoNetNS, arg, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return 0, fmt.Errorf("%w: %q is not a namespace file", ErrNoNetNS, arg)
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("open network namespace %q: %w", arg, err)
	}
	defer file.Close()
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		return 0, fmt.Errorf("%w: %q is a namespace of another kind", ErrNoNetNS, arg)
	}
	return Inode(path)
}

// findInode looks for a process or a named namespace with the inode. One that only a socket or a
// mount elsewhere keeps alive is not found. Where not every process may be asked, the error is
// fs.ErrPermission.
func findInode(inode uint64) error {
	list, hidden, err := NetNamespaces("/proc")
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(ns NetNS) bool { return ns.Inode == inode }) {
		return nil
	}
	if by := Powers(unix.CAP_SYS_PTRACE); len(by) > 0 &&
		(hidden > 0 || HiddenProcesses() != "") {
		return fmt.Errorf("look for network namespace %d among all processes: it takes %s: %w", inode, strings.Join(by, " and "), fs.ErrPermission)
	}
	seen := ""
	if !SeesAllProcesses() {
		seen = " of this PID namespace, which has not all,"
	}
	return fmt.Errorf("%w: inode %d is held by no process%s and no file in %s", ErrNoNetNS,
		inode, seen, named)
}

// Inode returns a file's inode number, following links.
func Inode(path string) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return 0, fmt.Errorf("read inode of %s: %w", path, err)
	}
	return stat.Ino, nil
}

func pidMax() uint64 {
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err == nil {
		if most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10,
			64); err == nil {
			return most
		}
	}
	return 1 << 22 // PID_MAX_LIMIT
}
