// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// playMinTTL has one listener that wants a TTL of 200 (as BGP speakers do,
// RFC 5082) and one that does not care. The clients send 64.
func playMinTTL(f family) playFunc {
	bound, server := f.listener, f.server
	const minimum, open = 200, port + 1
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		var none Expectation
		option := intOption(unix.IPPROTO_IP, unix.IP_MINTTL, minimum)
		if bound.Addr().Is6() {
			option = intOption(unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, minimum)
		}
		process, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{
			{Addr: bound, Backlog: backlog, Options: []SocketOption{option}}, {Addr: at(bound, open), Backlog: backlog},
		}})
		if err != nil {
			return none, err
		}
		dead, _, err := w.refused(ctx, server, at(server, open), "TCPMinTTLDrop")
		if err != nil {
			return none, err
		}
		log("%d SYNs with TTL 64 met a listener that wants %d", len(dead), minimum)
		return policy(dead, bound, process), nil
	}
}

// policy is the expectation of SYNs that a policy refused. Both kinds are looked
// at after the listener was found (tcp_v4_rcv), so that a record may name it.
func policy(dead []*Client, listener netip.AddrPort, process *Server) Expectation {
	e := ingress(event.CausePolicy, event.ActionDropped, dead...)
	e.Records[0].Listener = listener
	e.owners(process)
	return e
}

// refused sends SYNs that a policy keeps from their listener, each moving the kernel's
// counter by one, and some to an open port, which answers.
func (w *World) refused(ctx context.Context, server, open netip.AddrPort, counter string) (dead, answered []*Client, err error) {
	before, err := w.stats()
	if err != nil {
		return nil, nil, err
	}
	if dead, err = w.Burst(ctx, server, 3); err != nil {
		return nil, nil, err
	}
	if answered, err = w.Burst(ctx, open, 2); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(wantFate(event.ActionDropped, dead...), wantAnswers(answered, len(answered))); err != nil {
		return nil, nil, err
	}
	return dead, answered, w.wantMoved(before, stats{counter: uint64(len(dead))})
}
