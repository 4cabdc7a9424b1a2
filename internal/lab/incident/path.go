// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"net/netip"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"

	"github.com/synspy/synspy/internal/lab/world"
)

// behind is a container's address: its host forwards what is for it.
var behind = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 88, 0, 1}), world.Port)

// behindRouter gives this namespace an address, and makes another one that would forward packets
// for it.
func behindRouter(ctx context.Context, w *world.World, addr netip.Addr) (*world.World, error) {
	if err := w.Do(func() error { return world.Configure4("lo:lab", addr, 32) }); err != nil {
		return nil, err
	}
	router, err := world.New(ctx)
	if err != nil {
		return nil, err
	}
	w.Keep(router)
	if err := router.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		return nil, err
	}
	return router, router.AddRoute(netip.PrefixFrom(addr, 24))
}

// pathIncidents are those where the process is innocent.
func pathIncidents() []Incident {
	const every = 50 * time.Millisecond
	return []Incident{
		{
			Name: "diagnose-firewall", Title: "a firewall drops the SYNs",
			Finding: "dropped_before_listener",
			Explain: "nftables drops the SYNs of 20 clients a second to a server that accepts at once.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Firewall(world.Server4, world.HookInput,
					world.Drop().Verdict); err != nil {
					return nil, err
				}
				return steady(w, world.Server4, every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-rp-filter", Title: "the reverse path filter drops the SYNs",
			Finding: "dropped_before_listener",
			Explain: "The SYNs of 20 clients a second come through a device that the route back does not use (rp_filter=1).",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Asymmetric("lab1"); err != nil {
					return nil, err
				}
				return asymmetricTraffic(w, every), innocent(w, log)
			},
		},
		{
			Name: "diagnose-return-path", Title: "the answers are lost",
			Finding: "return_path_lost",
			Explain: "20 clients a second get no SYN-ACK, though the server sends them: they never acknowledge, and try again.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				c := &crowd{w: w, server: world.Server4, deaf: true}
				return c.steady(every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-closed-port", Title: "nothing listens",
			Finding: "no_listener",
			Explain: "The SYNs of 20 clients a second to a port where nothing listens are refused.",
			Begin: func(_ context.Context, w *world.World,
				_ func(string, ...any)) (traffic, error) {
				return steady(w, world.Server4, every, 1), nil
			},
		},
		{
			Name: "diagnose-healthy", Title: "all is well", Finding: "healthy",
			Explain: "20 clients a second connect to a server that accepts at once.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return steady(w, world.Server4, every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-half-open-checks", Title: "half-open health checks",
			Finding: "healthy",
			Explain: "Beside 20 clients a second that are served, a balancer probes 5 times a second: SYN, SYN-ACK, RST. Nobody is harmed by it.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				served := &crowd{w: w, server: world.Server4}
				checks := &crowd{w: w, server: world.Server4, checks: true}
				return together(served.steady(every, 1),
					checks.steady(4*every, 1)), innocent(w, log)
			},
		},
		{
			Name:  "diagnose-nothing-but-checks",
			Title: "nobody comes but health checks", Finding: "client_gave_up",
			Harmless: true,
			Explain:  "20 half-open health checks a second, and no client.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				checks := &crowd{w: w, server: world.Server4, checks: true}
				return checks.steady(every, 1), innocent(w, log)
			},
		},
		{
			Name:  "diagnose-answer-reset",
			Title: "the SYN-ACK is reset on the clients' side, and they try again", Finding: "return_path_lost",
			Explain: "A host in front of 20 clients a second resets each SYN-ACK, and the clients, who never see it, send their SYN again.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				c := &crowd{w: w, server: world.Server4, checks: true, deaf: true}
				return c.steady(every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-stray-acks", Title: "ACKs that belong to no handshake",
			Finding: "healthy",
			Explain: "Beside 20 clients a second that are served, 20 ACKs a second come of connections that this host does not know: each is reset, and no handshake fails.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Sysctl("net.ipv4.tcp_syncookies", "0"); err != nil {
					return nil, err
				}
				strays := func(ctx context.Context) error {
					return repeatEvery(ctx, w, every, func() error {
						c := w.Client(world.Server4)
						return c.Send(world.Segment{Seq: c.ISN + 1,
							ACK: 0x7a5a5a5a, Flags: world.FlagACK})
					})
				}
				return together(steady(w, world.Server4, every, 1),
					strays), innocent(w, log)
			},
		},
		{
			Name: "diagnose-silent", Title: "no SYN arrives", Finding: "no_syn_arrived",
			Explain: "A server that accepts at once, and no client.",
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return func(ctx context.Context) error {
					<-ctx.Done()
					return nil
				}, innocent(w, log)
			},
		},
		{
			Name:    "diagnose-forward-drop",
			Title:   "the host's FORWARD chain drops the SYNs",
			Finding: "no_syn_arrived", Unproven: true,
			Explain: "The SYNs of 20 clients a second to a container's address are dropped in another network namespace that was to forward them; the container's alone is asked about.",
			Names: []string{"10.88.0.1:8080",
				"netfilter at forward"}, Advice: []string{"nft -a list ruleset"},
			Begin: func(ctx context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				router, err := behindRouter(ctx, w, behind.Addr())
				if err != nil {
					return nil, err
				}
				if err := router.Firewall(behind, nftables.ChainHookForward,
					world.Drop().Verdict); err != nil {
					return nil, err
				}
				return steady(router, behind, every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-xdp", Title: "an XDP program drops the SYNs",
			Finding: "no_syn_arrived",
			Explain: "The SYNs of 20 clients a second are dropped in the driver of an Ethernet device by an XDP program, of which no drop event tells.",
			Names:   []string{"lab1", "lab_xdp_drop"},
			Begin: func(ctx context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				e, err := w.Shielded(ctx, "lab1", "lab_xdp_drop")
				if err != nil {
					return nil, err
				}
				c := &crowd{w: w, server: world.Server4, through: e}
				return c.steady(every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-xdp-generic", Title: "a generic XDP program drops the SYNs",
			Finding: "other_drops",
			Explain: "The SYNs of 20 clients a second are dropped by an XDP program that runs on what the driver has made packets of: the kernel tells of each.",
			Names:   []string{"lab0", "lab_xdp_drop"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.AttachXDP(world.TUNName, "lab_xdp_drop",
					world.DropSYNs(0,
						world.Server4.Port()), link.XDPGenericMode); err != nil {
					return nil, err
				}
				return steady(w, world.Server4, every, 1), innocent(w, log)
			},
		},
	}
}

// asymmetricTraffic is clients of that network.
func asymmetricTraffic(w *world.World, every time.Duration) traffic {
	n := uint16(0)
	c := &crowd{w: w, server: world.Server4, local: func() netip.AddrPort {
		n++
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 98, 0, byte(2 + n%200)}),
			20000+n)
	}}
	return c.steady(every, 1)
}
