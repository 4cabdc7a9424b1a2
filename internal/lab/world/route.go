// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AddRoute makes the TUN device the way to a prefix.
func (w *World) AddRoute(prefix netip.Prefix) error {
	return w.Do(func() error { return changeRoute(unix.SIOCADDRT, prefix) })
}

// RemoveRoute takes it away again.
func (w *World) RemoveRoute(prefix netip.Prefix) error {
	return w.Do(func() error { return changeRoute(unix.SIOCDELRT, prefix) })
}

func changeRoute(request uintptr, prefix netip.Prefix) error {
	change := changeRoute4
	if prefix.Addr().Is6() {
		change = changeRoute6
	}
	if err := change(request, prefix); err != nil {
		return fmt.Errorf("change route to %s: %w", prefix, err)
	}
	return nil
}

func changeRoute4(request uintptr, prefix netip.Prefix) error {
	address := func(addr netip.Addr) unix.RawSockaddrInet4 {
		return unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: addr.As4()}
	}
	mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}),
		prefix.Bits()).Masked().Addr()
	device, err := unix.BytePtrFromString(TUNName)
	if err != nil {
		return err
	}
	// struct rtentry of linux/route.h; the compiler pads as the kernel's does.
	entry := struct {
		_                            uintptr
		destination, gateway, subnet unix.RawSockaddrInet4
		flags                        uint16
		_                            int16
		_                            uintptr
		_                            unsafe.Pointer
		metric                       int16
		device                       *byte
		mtu, window                  uintptr
		irtt                         uint16
	}{
		destination: address(prefix.Masked().Addr()), subnet: address(mask),
		flags: unix.RTF_UP, device: device,
	}
	return withSocket(unix.AF_INET, func(fd int) error {
		return ioctl(fd, request, unsafe.Pointer(&entry))
	})
}

func changeRoute6(request uintptr, prefix netip.Prefix) error {
	ifr, err := unix.NewIfreq(TUNName)
	if err != nil {
		return err
	}
	return withSocket(unix.AF_INET6, func(fd int) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
			return err
		}
		// struct in6_rtmsg of linux/ipv6_route.h
		message := struct {
			destination, source, gateway    [16]byte
			kind                            uint32
			destinationLength, sourceLength uint16
			metric                          uint32
			info                            uintptr
			flags                           uint32
			index                           int32
		}{
			destination:       prefix.Masked().Addr().As16(),
			destinationLength: uint16(prefix.Bits()),
			metric:            1, flags: unix.RTF_UP, index: int32(ifr.Uint32()),
		}
		return ioctl(fd, request, unsafe.Pointer(&message))
	})
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	runtime.KeepAlive(argument)
	if errno != 0 {
		return errno
	}
	return nil
}

// Asymmetric gives 10.98.0.0/24 a route through a second device, and lets the TUN device
// refuse what comes from there.
func (w *World) Asymmetric(device string) error {
	if err := w.Do(func() error {
		tun, err := openTUN(device)
		if err != nil {
			return err
		}
		w.Keep(tun)
		return Configure4(device, netip.AddrFrom4([4]byte{10, 98, 0, 1}), 24)
	}); err != nil {
		return err
	}
	return w.Sysctl("net.ipv4.conf."+TUNName+".rp_filter", "1")
}
