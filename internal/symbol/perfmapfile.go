// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openPerfMap opens the perf map that a process writes, under the number it knows itself by.
// Anybody may put something there, so it must be what the process itself could have made: a file in
// its /tmp with no other name, and of its own user. Root's are for root's processes alone.
func openPerfMap(proc, root *os.File) (*os.File, error) {
	pid, user, err := writerOf(proc)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, errors.New("the process's root is not known")
	}
	const straight = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	dir, err := unix.Openat2(int(root.Fd()), "tmp",
		&unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: straight})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/tmp", Err: err}
	}
	defer unix.Close(dir)
	name := "perf-" + pid + ".map"
	// /tmp may be a mount of its own. What is mounted on the file itself may be any file there
	// is.
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
		Resolve: straight | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/tmp/" + name, Err: err}
	}
	defer unix.Close(fd)
	st, err := plainFile(fd)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open /tmp/%s: %w", name, err)
	case st.Nlink != 1:
		return nil, fmt.Errorf("open /tmp/%s: it has %d names", name, st.Nlink)
	case strconv.FormatUint(uint64(st.Uid), 10) != user:
		return nil, fmt.Errorf("open /tmp/%s: it is another user's", name)
	}
	return reopen(fd)
}

// writerOf is the number that a process knows itself by, and the user whom its files belong to.
func writerOf(proc *os.File) (pid, user string, err error) {
	status, err := openAt(proc, "status")
	if err != nil {
		return "", "", err
	}
	defer status.Close()
	lines := bufio.NewScanner(io.LimitReader(status, 1<<16))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "NSpid:":
			pid = fields[len(fields)-1]
		case fields[0] == "Uid:" && len(fields) > 2:
			user = fields[2] // the effective one
		}
	}
	if err := lines.Err(); err != nil {
		return "", "", fmt.Errorf("read status: %w", err)
	}
	if pid == "" || user == "" {
		return "", "", errors.New("read status: no NSpid or Uid")
	}
	return pid, user, nil
}
