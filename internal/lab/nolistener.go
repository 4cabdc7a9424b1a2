// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// playNoListener has a process that listens, but not where the clients knock.
func playNoListener(f family, loopback netip.AddrPort) playFunc {
	bound, server := f.listener, f.server
	const otherDevice, closed = port + 1, port + 2
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		var none Expectation
		_, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{
			{Addr: loopback, Backlog: backlog},
			{Addr: at(bound, otherDevice), Backlog: backlog, Options: []SocketOption{
				{Level: unix.SOL_SOCKET, Name: unix.SO_BINDTODEVICE, Value: []byte("lo")},
			}},
		}})
		if err != nil {
			return none, err
		}
		before, err := w.stats()
		if err != nil {
			return none, err
		}
		var dead []*Client
		for _, to := range []struct {
			port uint16
			syns int
		}{{closed, 3}, {port, 2}, {otherDevice, 2}} {
			clients, err := w.Burst(ctx, at(server, to.port), to.syns)
			if err != nil {
				return none, err
			}
			dead = append(dead, clients...)
		}
		if err := wantFate(event.ActionReset, dead...); err != nil {
			return none, err
		}
		resets, err := w.strays(ctx, at(server, closed))
		if err != nil {
			return none, err
		}
		if err := w.wantMoved(before, stats{"TcpOutRsts": uint64(len(dead) + resets)}); err != nil {
			return none, err
		}
		log("%d SYNs were reset: nobody listens there, or only on %s, or only on lo", len(dead), loopback.Addr())
		return ingress(event.CauseNoListener, event.ActionReset, dead...), nil
	}
}

// strays sends packets that are no SYNs to a closed port. All but the RST are
// answered by an RST, and none is a handshake that died: before a listener only
// a SYN is.
func (w *World) strays(ctx context.Context, server netip.AddrPort) (resets int, err error) {
	for _, flags := range []uint8{flagACK, flagFIN, flagRST, flagSYN | flagACK} {
		c := w.Client(server)
		if err := c.send(segment{seq: c.ISN, ack: 1, flags: flags}); err != nil {
			return 0, err
		}
		if err := w.Barrier(ctx); err != nil {
			return 0, err
		}
		if c.WasReset() != (flags != flagRST) {
			return 0, fmt.Errorf("a stray packet with flags %#x was reset: %t", flags, c.WasReset())
		}
		if c.WasReset() {
			resets++
		}
	}
	return resets, nil
}
