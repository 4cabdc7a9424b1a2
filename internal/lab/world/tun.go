// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	TUNName = "lab0"
	// tunQueue holds the answers of a burst until they are read; the default of
	// 500 would lose some of a flood's SYN-ACKs.
	tunQueue = 8192
)

// openTUN makes a TUN device in the calling thread's namespace. The returned
// file can be used from any thread: the device stays where it was made.
func openTUN(name string) (*os.File, error) { return openTunnel(name, unix.IFF_TUN) }

// openTAP is openTUN for an Ethernet device.
func openTAP(name string) (*os.File, error) { return openTunnel(name, unix.IFF_TAP) }

func openTunnel(name string, kind uint16) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (is the tun module loaded?): %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	ifr.SetUint16(kind | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TUN or TAP device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "tun:"+name), nil
}

// withSocket runs f with a socket of the calling thread's namespace, which is
// what interface ioctls act through.
func withSocket(domain int, f func(fd int) error) error {
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ioctls: %w", err)
	}
	defer unix.Close(fd)
	return f(fd)
}

// SetFlags sets and clears interface flags in the calling thread's namespace.
func SetFlags(name string, set, clear uint16) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	return withSocket(unix.AF_INET, func(fd int) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
			return fmt.Errorf("read flags of %s: %w", name, err)
		}
		ifr.SetUint16(ifr.Uint16()&^clear | set)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
			return fmt.Errorf("set flags of %s: %w", name, err)
		}
		return nil
	})
}

// hardwareAddress returns the address of an Ethernet device.
func hardwareAddress(name string) ([]byte, error) {
	// struct ifreq with a struct sockaddr
	var request struct {
		name    [unix.IFNAMSIZ]byte
		family  uint16
		address [6]byte
		_       [16]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	err := withSocket(unix.AF_INET, func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFHWADDR,
			uintptr(unsafe.Pointer(&request)))
		if errno != 0 {
			return fmt.Errorf("read address of %s: %w", name, errno)
		}
		return nil
	})
	return request.address[:], err
}

// Configure4 gives the device an address and its on-link prefix, a long
// transmit queue, and brings it up.
func Configure4(name string, addr netip.Addr, bits int) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-bits))
	err = withSocket(unix.AF_INET, func(fd int) error {
		if err := ifr.SetInet4Addr(addr.AsSlice()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, ifr); err != nil {
			return fmt.Errorf("give %s to %s: %w", addr, name, err)
		}
		if err := ifr.SetInet4Addr(mask); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFNETMASK, ifr); err != nil {
			return fmt.Errorf("set prefix of %s: %w", name, err)
		}
		ifr.SetUint32(tunQueue)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFTXQLEN, ifr); err != nil {
			return fmt.Errorf("set queue length of %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return SetFlags(name, unix.IFF_UP, 0)
}

// DeviceIndex finds a device of the calling thread's namespace.
func DeviceIndex(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = withSocket(unix.AF_INET, func(fd int) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
			return fmt.Errorf("find index of %s: %w", name, err)
		}
		return nil
	})
	return int(ifr.Uint32()), err
}

// configure6 gives the device an IPv6 address and its on-link prefix.
func configure6(name string, addr netip.Addr, bits int) error {
	index, err := DeviceIndex(name)
	if err != nil {
		return err
	}
	return withSocket(unix.AF_INET6, func(fd int) error {
		// struct in6_ifreq of linux/ipv6.h
		request := struct {
			addr   [16]byte
			prefix uint32
			index  int32
		}{addr.As16(), uint32(bits), int32(index)}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR,
			uintptr(unsafe.Pointer(&request)))
		if errno != 0 {
			return fmt.Errorf("give %s to %s: %w", addr, name, errno)
		}
		return nil
	})
}

// awaitAddr6 waits until the address can be used. A TUN device is IFF_NOARP, so
// there is no duplicate address detection to wait for (addrconf_dad_begin), but
// a kernel worker says so (addrconf_dad_work), and until then the address is
// tentative and answers nothing.
func awaitAddr6(addr netip.Addr) error {
	const tentative = 0x40 // IFA_F_TENTATIVE
	want := fmt.Sprintf("%x", addr.AsSlice())
	for deadline := time.Now().Add(answerTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		table, err := os.ReadFile("/proc/thread-self/net/if_inet6")
		if err != nil {
			return fmt.Errorf("read IPv6 addresses: %w", err)
		}
		for line := range strings.Lines(string(table)) {
			// address, interface index, prefix length, scope, flags, name
			fields := strings.Fields(line)
			if len(fields) != 6 || fields[0] != want {
				continue
			}
			if flags, err := strconv.ParseUint(fields[4], 16, 32); err == nil &&
				flags&tentative == 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("address %s stays tentative", addr)
}

// Flow is one client's connection as its answers carry it.
type Flow struct{ Client, Server netip.AddrPort }

// readTUN hands every answer to its client until the device is closed. Packets
// that no client waits for (neighbour and multicast chatter, late SYN-ACKs of
// finished clients) are dropped.
func (w *World) readTUN() {
	buf := make([]byte, 65536)
	for {
		n, err := w.tun.Read(buf)
		if err != nil {
			return // closed
		}
		if id, ok := parseEchoReply(buf[:n]); ok {
			w.mu.Lock()
			if waiting := w.echoes[id]; waiting != nil {
				delete(w.echoes, id)
				close(waiting)
			}
			w.mu.Unlock()
			continue
		}
		s, err := ParseSegment(buf[:n])
		if err != nil {
			continue
		}
		w.mu.Lock()
		inbox := w.inboxes[Flow{Client: s.Dst, Server: s.Src}]
		w.mu.Unlock()
		select {
		case inbox <- s:
		default: // nobody there, or 64 unread answers
		}
	}
}

// InjectFrame writes one packet to the device. When it returns, the kernel has
// received the packet and decided what becomes of it.
func (w *World) InjectFrame(packet []byte) error {
	if _, err := w.tun.Write(packet); err != nil {
		return fmt.Errorf("write packet to TUN device: %w", err)
	}
	return nil
}

// barrierTimeout is far above what an echo takes, even under full emulation.
const barrierTimeout = 10 * time.Second

// Barrier returns once every answer to the packets written so far is in its
// client's inbox, so that "no answer" is an observation and not a timeout. It
// sends an ICMP echo request and waits for the reply, which leaves through the
// same queue behind them.
func (w *World) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()

	w.mu.Lock()
	w.echo++
	id, reply := w.echo, make(chan struct{})
	w.echoes[id] = reply
	w.mu.Unlock()
	if err := w.InjectFrame(echoRequest(echoClient, ServerAddr4, id)); err != nil {
		return err
	}
	select {
	case <-reply:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("no echo from the namespace"), ctx.Err())
	}
}
