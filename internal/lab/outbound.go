// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// playOutbound connects from the server's host to elsewhere. Its own firewall
// frees that SYN with the same reason and in the same function as an inbound one
// (nft_do_chain), but a SYN that is sent is nobody's handshake here.
func playOutbound(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	var none Expectation
	remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, 250}), port)
	stopped := at(remote, port+1)
	if err := w.firewall(stopped, hookOutput, drop().verdict); err != nil {
		return none, err
	}
	before, err := w.stats()
	if err != nil {
		return none, err
	}
	for i, to := range []netip.AddrPort{remote, stopped} {
		from := at(server4, uint16(40000+i))
		peer := w.ClientFrom(to, from, 0) // who sees the SYN, if it leaves
		if err := w.Do(func() error { return connectAndGo(from, to) }); err != nil {
			return none, err
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if peer.drain(); len(peer.others) > 0 != (to == remote) {
			return none, fmt.Errorf("%d packets left for %s", len(peer.others), to)
		}
	}
	if err := w.wantMoved(before, stats{"TcpActiveOpens": 2}); err != nil {
		return none, err
	}
	log("one SYN left for %s, the firewall stopped another one for %s", remote, stopped)
	return Expectation{Counters: counters(nil)}, nil
}

// connectAndGo sends one SYN from the calling thread's namespace and closes the
// socket before it can send another.
func connectAndGo(from, to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open client socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.Addr().As4(), Port: int(from.Port())}); err != nil {
		return fmt.Errorf("bind to %s: %w", from, err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return nil
}
