// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// playNoListener has a process that listens, but not where the clients knock.
func playNoListener(f world.Family, loopback netip.AddrPort) scenario.PlayFunc {
	bound, s := f.Listener, f.Server
	const otherDevice, closed = world.Port + 1, world.Port + 2
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		_, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{
			{Addr: loopback, Backlog: world.Backlog},
			{Addr: world.At(bound, otherDevice), Backlog: world.Backlog,
				Options: []server.SocketOption{
					{Level: unix.SOL_SOCKET, Name: unix.SO_BINDTODEVICE,
						Value: []byte("lo")},
				}},
		}})
		if err != nil {
			return none, err
		}
		before, err := w.Stats()
		if err != nil {
			return none, err
		}
		var dead []*world.Client
		for _, to := range []struct {
			port uint16
			syns int
		}{{closed, 3}, {world.Port, 2}, {otherDevice, 2}} {
			clients, err := w.Burst(ctx, world.At(s, to.port), to.syns)
			if err != nil {
				return none, err
			}
			dead = append(dead, clients...)
		}
		if err := scenario.WantAction(event.ActionReset, dead...); err != nil {
			return none, err
		}
		resets, err := strays(ctx, w, world.At(s, closed))
		if err != nil {
			return none, err
		}
		if err := w.WantMoved(before,
			world.Stats{"TcpOutRsts": uint64(len(dead) + resets)}); err != nil {
			return none, err
		}
		log("%d SYNs were reset: nobody listens there, or only on %s, or only on lo",
			len(dead), loopback.Addr())
		return scenario.Ingress(event.CauseNoListener, event.ActionReset, dead...), nil
	}
}

// strays sends packets that are no SYNs to a closed port. All but the RST are
// answered by an RST, and none is a handshake that died: before a listener only
// a SYN is.
func strays(ctx context.Context, w *world.World, server netip.AddrPort) (resets int, err error) {
	for _, flags := range []uint8{world.FlagACK, world.FlagFIN, world.FlagRST,
		world.FlagSYN | world.FlagACK} {
		c := w.Client(server)
		if err := c.Send(world.Segment{Seq: c.ISN, ACK: 1, Flags: flags}); err != nil {
			return 0, err
		}
		if err := w.Barrier(ctx); err != nil {
			return 0, err
		}
		if c.WasReset() != (flags != world.FlagRST) {
			return 0, fmt.Errorf("a stray packet with flags %#x was reset: %t", flags,
				c.WasReset())
		}
		if c.WasReset() {
			resets++
		}
	}
	return resets, nil
}
