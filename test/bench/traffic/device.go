// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/synspy/synspy/test/bench/cpu"
	"golang.org/x/sys/unix"
)

const DeviceName = "bench0"

// deviceQueue is the transmit queue, in packets: long, so that nobody needs to read the
// answers while they are timed. What it has no room for is thrown away unseen. Kernels of
// late refuse more (6.12.117: ERANGE at 32768).
const deviceQueue = 8192

// device is a TUN device written to by system calls that the Go runtime does
// not know of: in a timed loop its scheduler would be measured too.
type device struct {
	fd  int
	buf [2048]byte
}

// openDevice makes the device in the calling thread's namespace and brings it up.
func openDevice() (*device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (is the tun module loaded?): %w", err)
	}
	if err := configure(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up TUN device %s: %w", DeviceName, err)
	}
	return &device{fd: fd}, nil
}

func configure(tun int) error {
	ifr, err := unix.NewIfreq(DeviceName)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, step := range []struct {
		request uint
		set     func() error
	}{
		{unix.SIOCSIFADDR, func() error { return ifr.SetInet4Addr(serverAddr.AsSlice()) }},
		{unix.SIOCSIFNETMASK, func() error { return ifr.SetInet4Addr([]byte{255, 255, 0, 0}) }},
		{unix.SIOCSIFTXQLEN, func() error { ifr.SetUint32(deviceQueue); return nil }},
		{unix.SIOCGIFFLAGS, func() error { return nil }},
		{unix.SIOCSIFFLAGS, func() error { ifr.SetUint16(ifr.Uint16() | unix.IFF_UP); return nil }},
	} {
		if err := step.set(); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, step.request, ifr); err != nil {
			return err
		}
	}
	return nil
}

// chunk is how many frames are timed together: few, so that a chunk is much
// shorter than a time slice.
const chunk = 8

// write sends frames from one pinned thread and times each chunk: a write to the
// device runs the kernel's whole receive path before it returns (tun_get_user).
func (d *device) write(frames [][]byte) (Times, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	release, err := cpu.PinThread(cpu.Generator)
	if err != nil {
		return nil, err
	}
	defer release()
	took := make(Times, 0, len(frames)/chunk+1)
	for before := time.Now(); len(frames) > 0; {
		n := min(chunk, len(frames))
		for _, frame := range frames[:n] {
			if err := d.WriteFrame(frame); err != nil {
				return nil, err
			}
		}
		now := time.Now()
		took, before, frames = append(took, now.Sub(before).Seconds()), now, frames[n:]
	}
	return took, nil
}

func (d *device) WriteFrame(frame []byte) error {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(&frame[0])), uintptr(len(frame)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return fmt.Errorf("write to TUN device: %w", errno)
		}
	}
}

// Answers takes all packets that wait in the device's queue and gives the
// sequence number of each client's SYN-ACK.
func (d *device) Answers() (map[Client]uint32, error) {
	found := make(map[Client]uint32)
	for {
		n, err := unix.Read(d.fd, d.buf[:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return found, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("read from TUN device: %w", err)
		}
		if c, seq, ok := synAck(d.buf[:n]); ok {
			found[c] = seq
		}
	}
}

// Drain throws away all packets that wait in the device's queue, and counts them.
func (d *device) Drain() (n int, err error) {
	for {
		switch _, err := unix.Read(d.fd, d.buf[:]); {
		case err == nil:
			n++
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case !errors.Is(err, unix.EINTR):
			return n, fmt.Errorf("read from TUN device: %w", err)
		}
	}
}

func (d *device) Close() error { return unix.Close(d.fd) }

// Loopback is 127.0.0.1 with this port.
func Loopback(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}
