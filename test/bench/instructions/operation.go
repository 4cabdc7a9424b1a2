// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/test/bench/traffic"
	"golang.org/x/sys/unix"
)

// operation is one thing that a kernel does for its network, to be done many times.
type operation struct {
	name, title string
	ours        bool // synspy looks at it; anything else should not notice synspy
	// open prepares for a number of them.
	open func(t *traffic.Target, total int) (*session, error)
}

// dropped reports whether a listener drops it: there are records of it.
func (o operation) dropped() bool { return strings.HasSuffix(o.name, "_dropped") }

// session does an operation n times, and has what counts run in laps of the stopwatch.
type session struct {
	play  func(n int, w *traffic.Stopwatch) error
	close func() error
}

var operations = []operation{
	{"syn_answered", "SYN answered", true, synsAnswered},
	{"handshake", "handshake only", true, handshakes},
	{"connection", "whole connection (handshake, accept, close)", true, connections},
	{"loopback_connection", "connection over loopback, both ends (connect, accept, two closes)", true, loopbackConnections},
	{"syn_dropped", "dropped SYN", true, synsDropped},
	{"cookie_ack_dropped", "dropped cookie ACK", true, cookieACKsDropped},
	{"udp", "UDP datagram sent and received", false, udpDatagrams},
	{"tcp_pingpong", "established TCP, there and back", false, tcpPingPongs},
	{"unix_datagram", "UNIX datagram (consume_skb)", false, unixDatagrams},
	{"udp_freed", "UDP packet freed with a wrong checksum (kfree_skb)", false, wrongChecksums},
	{"forwarded", "TCP segment forwarded", false, forwardedSegments},
}

// writeAll sends frames in one lap.
func writeAll(t *traffic.Target, frames [][]byte, w *traffic.Stopwatch) error {
	return w.Lap(func() error {
		for _, frame := range frames {
			if err := t.Device.WriteFrame(frame); err != nil {
				return err
			}
		}
		return nil
	})
}

// accept takes one connection off the accept queue by a system call that the Go runtime
// does not know of.
func accept(listener int) (int, error) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, fmt.Errorf("accept: %w", errno)
	}
	return int(fd), nil
}

func closeRaw(fd int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0); errno != 0 {
		return fmt.Errorf("close: %w", errno)
	}
	return nil
}

// chunkOperations is how many are counted together. A timer's tick is in one chunk of some
// ten, which the median leaves out.
const chunkOperations = 32
