// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// playMinTTL has one listener that wants a TTL of 200 (as BGP speakers do,
// RFC 5082) and one that does not care. The clients send 64.
func playMinTTL(f world.Family) scenario.PlayFunc {
	bound, s := f.Listener, f.Server
	const minimum, open = 200, world.Port + 1
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		option := server.IntOption(unix.IPPROTO_IP, unix.IP_MINTTL, minimum)
		if bound.Addr().Is6() {
			option = server.IntOption(unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, minimum)
		}
		process, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{
			{Addr: bound, Backlog: world.Backlog,
				Options: []server.SocketOption{option}}, {Addr: world.At(bound,
				open), Backlog: world.Backlog},
		}})
		if err != nil {
			return none, err
		}
		dead, _, err := refused(ctx, w, s, world.At(s, open), "TCPMinTTLDrop")
		if err != nil {
			return none, err
		}
		log("%d SYNs with TTL 64 met a listener that wants %d", len(dead), minimum)
		return policy(dead, bound, process), nil
	}
}

// policy is the expectation of SYNs that a policy refused. Both kinds are looked
// at after the listener was found (tcp_v4_rcv), so that a record may name it.
func policy(dead []*world.Client, listener netip.AddrPort,
	process *server.Server) scenario.Expectation {
	e := scenario.Ingress(event.CausePolicy, event.ActionDropped, dead...)
	e.Records[0].Listener = listener
	e.Owners(process)
	return e
}

// refused sends SYNs that a policy keeps from their listener, each moving the kernel's
// counter by one, and some to an open port, which answers.
func refused(ctx context.Context, w *world.World, server, open netip.AddrPort,
	counter string) (dead, answered []*world.Client, err error) {
	before, err := w.Stats()
	if err != nil {
		return nil, nil, err
	}
	if dead, err = w.Burst(ctx, server, 3); err != nil {
		return nil, nil, err
	}
	if answered, err = w.Burst(ctx, open, 2); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(scenario.WantAction(event.ActionDropped, dead...),
		scenario.WantAnswers(answered, len(answered))); err != nil {
		return nil, nil, err
	}
	return dead, answered, w.WantMoved(before, world.Stats{counter: uint64(len(dead))})
}
