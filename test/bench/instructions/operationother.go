// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/synspy/synspy/test/bench/traffic"
	"golang.org/x/sys/unix"
)

// Sockets of both ends on the loopback device, and what is no business of a listener's.

// message is what datagrams and segments carry.
var message [64]byte

func sendRaw(fd int) error { return transferRaw(unix.SYS_WRITE, fd) }
func recvRaw(fd int) error { return transferRaw(unix.SYS_READ, fd) }

func transferRaw(call uintptr, fd int) error {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&message[0])), uintptr(len(message)))
	if errno != 0 {
		return fmt.Errorf("transfer message: %w", errno)
	}
	if n != uintptr(len(message)) {
		return fmt.Errorf("transfer message: %d of %d bytes", n, len(message))
	}
	return nil
}

// repeated does one thing n times in a lap.
func repeated(once func() error) func(int, *traffic.Stopwatch) error {
	return func(n int, w *traffic.Stopwatch) error {
		return w.Lap(func() error {
			for range n {
				if err := once(); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// closing closes sockets.
func closing(fds ...int) func() error {
	return func() error {
		var errs []error
		for _, fd := range fds {
			errs = append(errs, unix.Close(fd))
		}
		return errors.Join(errs...)
	}
}

// pairOn makes two sockets that are connected to each other: the one that connects first.
func pairOn(listener int, port int) (client, server int, err error) {
	if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, err
	}
	if err := unix.Connect(client, traffic.Loopback(port)); err != nil {
		return -1, -1, errors.Join(err, unix.Close(client))
	}
	if server, err = accept(listener); err != nil {
		return -1, -1, errors.Join(err, unix.Close(client))
	}
	return client, server, nil
}

// listenLoopback opens a listener whose connections end by FINs.
func listenLoopback(t *traffic.Target) (listener, port int, err error) {
	if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	port = int(t.Port) + 1
	err = errors.Join(
		unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(listener, traffic.Loopback(port)), unix.Listen(listener, traffic.Roomy))
	if err != nil {
		return -1, 0, errors.Join(fmt.Errorf("listen on loopback: %w", err), unix.Close(listener))
	}
	return listener, port, nil
}

// loopbackConnections are made and closed by both ends, with FINs, the server's first. No
// TIME_WAIT stays behind, or its timers would be counted later.
func loopbackConnections(t *traffic.Target, _ int) (*session, error) {
	if err := t.World.Sysctl("net.ipv4.tcp_max_tw_buckets", "0"); err != nil {
		return nil, err
	}
	listener, port, err := listenLoopback(t)
	if err != nil {
		return nil, err
	}
	addr := [16]byte{unix.AF_INET, 0, byte(port >> 8), byte(port), 127, 0, 0, 1}
	once := func() error {
		fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if errno != 0 {
			return fmt.Errorf("open socket: %w", errno)
		}
		_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&addr[0])), uintptr(len(addr)))
		if errno != 0 {
			return fmt.Errorf("connect over loopback: %w", errno)
		}
		server, err := accept(listener)
		if err != nil {
			return err
		}
		if err := closeRaw(server); err != nil {
			return err
		}
		return closeRaw(int(fd))
	}
	return &session{close: closing(listener), play: repeated(once)}, nil
}

// udpDatagrams go from one socket to another.
func udpDatagrams(t *traffic.Target, _ int) (*session, error) {
	to, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	from, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, unix.Close(to))
	}
	err = errors.Join(unix.Bind(to, traffic.Loopback(int(t.Port))), unix.Connect(from, traffic.Loopback(int(t.Port))))
	if err != nil {
		return nil, errors.Join(err, closing(from, to)())
	}
	return &session{close: closing(from, to), play: repeated(func() error {
		return errors.Join(sendRaw(from), recvRaw(to))
	})}, nil
}

// tcpPingPongs go there and back on one established connection.
func tcpPingPongs(t *traffic.Target, _ int) (*session, error) {
	listener, port, err := listenLoopback(t)
	if err != nil {
		return nil, err
	}
	client, server, err := pairOn(listener, port)
	if err != nil {
		return nil, errors.Join(err, unix.Close(listener))
	}
	for _, fd := range []int{client, server} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return nil, errors.Join(err, closing(client, server, listener)())
		}
	}
	return &session{close: closing(client, server, listener), play: repeated(func() error {
		return errors.Join(sendRaw(client), recvRaw(server), sendRaw(server), recvRaw(client))
	})}, nil
}

// unixDatagrams are consumed without any network.
func unixDatagrams(_ *traffic.Target, _ int) (*session, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket pair: %w", err)
	}
	return &session{close: closing(ends[0], ends[1]), play: repeated(func() error {
		return errors.Join(sendRaw(ends[0]), recvRaw(ends[1]))
	})}, nil
}

// wrongChecksums are UDP packets that kfree_skb frees, unanswered. To a socket, as no other
// would have its checksum looked at first.
func wrongChecksums(t *traffic.Target, _ int) (*session, error) {
	to, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(to, &unix.SockaddrInet4{Port: int(t.Port)}); err != nil {
		return nil, errors.Join(err, unix.Close(to))
	}
	frame := traffic.Client(0).Frame(t.Port, traffic.FlagACK, 0, 0, nil)
	udpOf(frame)
	return &session{close: closing(to), play: repeated(func() error { return t.Device.WriteFrame(frame) })}, nil
}

// udpOf makes a TCP frame one of UDP, whose checksum is wrong.
func udpOf(frame []byte) {
	ip, udp := frame[:20], frame[20:]
	ip[9] = unix.IPPROTO_UDP
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^traffic.Fold(traffic.Sum(0, ip)))
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], 0xbad)
}

// forwardedSegments come in by the device and leave by it, to another client.
func forwardedSegments(t *traffic.Target, _ int) (*session, error) {
	for _, s := range [][2]string{
		{"net.ipv4.ip_forward", "1"},
		{"net.ipv4.conf.all.send_redirects", "0"},
		{"net.ipv4.conf." + traffic.DeviceName + ".send_redirects", "0"},
	} {
		if err := t.World.Sysctl(s[0], s[1]); err != nil {
			return nil, err
		}
	}
	frame := traffic.Client(0).Frame(t.Port, traffic.FlagACK, 1, 1, nil)
	to := traffic.Client(traffic.HostsPerNet).Addr()
	readdress(frame, to)
	return &session{
		close: func() error { return t.World.Sysctl("net.ipv4.ip_forward", "0") },
		play: func(n int, w *traffic.Stopwatch) error {
			if _, err := t.Device.Drain(); err != nil { // what others may have sent
				return err
			}
			if err := repeated(func() error { return t.Device.WriteFrame(frame) })(n, w); err != nil {
				return err
			}
			left, err := t.Device.Drain()
			if err == nil && left < n {
				err = fmt.Errorf("%d of %d segments were forwarded", left, n)
			}
			return err
		},
	}, nil
}

// readdress sends a frame to someone else. The TCP checksum is wrong then, which no router minds.
func readdress(frame []byte, to [4]byte) {
	ip := frame[:20]
	copy(ip[16:], to[:])
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^traffic.Fold(traffic.Sum(0, ip)))
}
