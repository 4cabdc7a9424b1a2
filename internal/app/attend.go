// SPDX-License-Identifier: Apache-2.0

package app

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/render"
)

// readerGone returns a function that tells whether nobody reads any more what is
// written there: the other end of a pipe or socket was closed. It costs one
// poll(2). Of anything but a file it knows nothing.
func readerGone(to io.Writer) func() bool {
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
			gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		})
		return gone
	}
}

// attended is a stream that notices at each flush, also when it has nothing to
// write, that its reader went away: trace | head -1 is to end when head does.
type attended struct {
	render.Stream
	gone func() bool
}

// Flush returns EPIPE once the reader is gone.
func (s attended) Flush() error {
	if s.gone() {
		return syscall.EPIPE
	}
	return s.Stream.Flush()
}
