// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketOption is a socket option that a listener sets before bind().
type SocketOption struct {
	Level, Name int
	Value       []byte
}

// IntOption is an option whose value is an int.
func IntOption(level, name, value int) SocketOption {
	return SocketOption{Level: level, Name: name,
		Value: binary.NativeEndian.AppendUint32(nil, uint32(value))}
}

// Configure sets the listener's options and its filter.
func (l ListenConfig) Configure(fd int) error {
	for _, o := range l.Options {
		if err := unix.SetsockoptString(fd, o.Level, o.Name, string(o.Value)); err != nil {
			return fmt.Errorf("set option %d of level %d: %w", o.Name, o.Level, err)
		}
	}
	if len(l.Filter) == 0 {
		return nil
	}
	program := unix.SockFprog{Len: uint16(len(l.Filter)), Filter: &l.Filter[0]}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET,
		unix.SO_ATTACH_FILTER,
		uintptr(unsafe.Pointer(&program)), unsafe.Sizeof(program), 0)
	if errno != 0 {
		return fmt.Errorf("attach filter: %w", errno)
	}
	return nil
}

// hangUpLoop closes every connection as soon as it is accepted, with a FIN: the
// side that closes first is the one that keeps the TIME_WAIT socket.
func hangUpLoop(fd int) {
	for {
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err == nil {
			if err = unix.SetsockoptLinger(conn, unix.SOL_SOCKET, unix.SO_LINGER,
				&unix.Linger{}); err == nil {
				err = unix.Close(conn)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "accept and hang up:", err)
			return
		}
	}
}
