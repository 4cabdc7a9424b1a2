// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// playOutbound connects from the server's host to elsewhere. Its own firewall
// frees that SYN with the same reason and in the same function as an inbound one
// (nft_do_chain), but a SYN that is sent is nobody's handshake here.
func playOutbound(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	var none scenario.Expectation
	remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, 250}), world.Port)
	stopped := world.At(remote, world.Port+1)
	if err := w.Firewall(stopped, world.HookOutput, world.Drop().Verdict); err != nil {
		return none, err
	}
	before, err := w.Stats()
	if err != nil {
		return none, err
	}
	for i, to := range []netip.AddrPort{remote, stopped} {
		from := world.At(world.Server4, uint16(40000+i))
		peer := w.ClientFrom(to, from, 0) // who sees the SYN, if it leaves
		if err := w.Do(func() error { return connectAndGo(from, to) }); err != nil {
			return none, err
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if peer.Drain(); len(peer.Others) > 0 != (to == remote) {
			return none, fmt.Errorf("%d packets left for %s", len(peer.Others), to)
		}
	}
	if err := w.WantMoved(before, world.Stats{"TcpActiveOpens": 2}); err != nil {
		return none, err
	}
	log("one SYN left for %s, the firewall stopped another one for %s", remote, stopped)
	return scenario.Expectation{Counters: scenario.Counters(nil)}, nil
}

// connectAndGo sends one SYN from the calling thread's namespace and closes the
// socket before it can send another.
func connectAndGo(from, to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		0)
	if err != nil {
		return fmt.Errorf("open client socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd,
		&unix.SockaddrInet4{Addr: from.Addr().As4(), Port: int(from.Port())}); err != nil {
		return fmt.Errorf("bind to %s: %w", from, err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return nil
}
