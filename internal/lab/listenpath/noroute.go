// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"net/netip"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// Networks for documentation (RFC 5737, RFC 3849): the namespace has no route to
// them, and no default route.
var (
	unrouted4 = netip.MustParsePrefix("192.0.2.0/24")
	routed4   = netip.MustParsePrefix("198.51.100.0/24")
	unrouted6 = netip.MustParsePrefix("2001:db8:1::/64")
	routed6   = netip.MustParsePrefix("2001:db8:2::/64")
)

// clientsIn makes n clients with addresses of that prefix.
func clientsIn(w *world.World, prefix netip.Prefix, server netip.AddrPort, n int) []*world.Client {
	list := make([]*world.Client, n)
	for i := range list {
		local, isn := w.NextClient(server)
		address := prefix.Addr().AsSlice()
		address[len(address)-1] = byte(7 + i)
		addr, _ := netip.AddrFromSlice(address) // its length is an address's
		list[i] = w.ClientFrom(netip.AddrPortFrom(addr, local.Port()), server, isn)
	}
	return list
}

// playNoRouteBack needs rp_filter off, as every World has it: with it, the SYN
// would not reach the listener. At the ACK the route is looked up again for the
// child: tcp_v4_syn_recv_sock makes it first (inet_csk_route_child_sock fails),
// tcp_v6_syn_recv_sock asks before (inet6_csk_route_req). The request survives
// both, as it does when the accept queue is full.
func playNoRouteBack(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const strangers, cutOff = 3, 2
		unrouted, routed := unrouted4, routed4
		if f.IPv6() {
			unrouted, routed = unrouted6, routed6
		}
		var none scenario.Expectation
		if err := w.Sysctls("net.ipv4.tcp_syncookies", "1",
			"net.ipv4.tcp_abort_on_overflow", "0"); err != nil {
			return none, err
		}
		server, err := scenario.IdleServer(w, f.Listener, world.Backlog)
		if err != nil {
			return none, err
		}
		lostSyns := clientsIn(w, unrouted, f.Server, strangers)
		if err := scenario.Each(ctx, w, lostSyns, (*world.Client).SYN); err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(lostSyns, 0); err != nil {
			return none, err
		}

		if err := w.AddRoute(routed); err != nil {
			return none, err
		}
		lostAcks := clientsIn(w, routed, f.Server, cutOff)
		if err := scenario.Each(ctx, w, lostAcks, (*world.Client).SYN); err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(lostAcks, cutOff); err != nil {
			return none, err
		}
		if err := w.RemoveRoute(routed); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, lostAcks, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, cutOff); err != nil {
			return none, err
		}
		if err := w.AddRoute(routed); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, lostAcks, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(cutOff, 0); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("clients cut off",
			append(lostAcks[:cutOff:cutOff], lostSyns...)); err != nil {
			return none, err
		}
		log("%d SYNs from %s got no answer; %d ACKs from %s were lost while its route was away", strangers, unrouted, cutOff, routed)

		e := scenario.Expectation{
			Records: []scenario.Expect{
				{
					Cause: event.CauseNoRouteBack, Stage: event.StageSyn,
					Action: event.ActionDropped, Count: strangers,
					Listener: f.Listener, Clients: scenario.Addresses(lostSyns),
					Attempts: scenario.First(strangers),
					PIDs:     []int{server.PID},
				},
				{
					Cause: event.CauseNoRouteBack, Stage: event.StageAck,
					Action: event.ActionDropped, Count: cutOff,
					Listener: f.Listener, Clients: scenario.Addresses(lostAcks),
					Attempts: scenario.First(cutOff),
					PIDs:     []int{server.PID},
				},
			},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterListenDrops: strangers + cutOff}),
			Syns: w.Syns(), Handshakes: strangers + cutOff,
		}
		e.Owners(server)
		return e, nil
	}
}
