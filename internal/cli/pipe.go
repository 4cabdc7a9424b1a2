// SPDX-License-Identifier: Apache-2.0

// Package cli is what all verbs share: errors that say what to do, output files, pipes whose reader
// may go, and the forms of output.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ReaderGone returns a function that reports whether nobody reads any more what is
// written there: the other end of a pipe or socket was closed. It costs one
// poll(2). Of anything but a file it knows nothing.
func ReaderGone(to io.Writer) func() bool {
	file, ok := to.(syscall.Conn)
	if !ok {
		return func() bool { return false }
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return func() bool { return false }
	}
	return func() bool {
		gone := false
		_ = raw.Control(func(fd uintptr) { // fails only for a file that was closed
			fds := []unix.PollFd{{Fd: int32(fd)}}
			n, err := unix.Poll(fds, 0)
			gone = err == nil && n > 0 &&
				fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		})
		return gone
	}
}

// ErrUsage wraps what the user asked for wrongly.
var ErrUsage = errors.New("bad usage")

// Usage is an error of the command line.
func Usage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUsage, fmt.Errorf(format, args...))
}

// QuietEvery is how often silence is explained.
const QuietEvery = 10 * time.Second

// ErrEnough ends a stream that has shown what was asked for.
var ErrEnough = errors.New("enough records")

// IgnoreClosedPipe lets a reader that went away end the stream silently.
func IgnoreClosedPipe(err error) error {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// SayTo writes a line about the run itself.
func SayTo(status io.Writer, line string) {
	if status != nil {
		_, _ = fmt.Fprintln(status, "synspy: "+line)
	}
}
