// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"net/netip"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// reasonIncidents are SYNs that the kernel drops for a reason with a setting or a cure of its own,
// and a setting that is not where the server is.
func reasonIncidents() []Incident {
	const every = 50 * time.Millisecond
	device := "net.ipv4.conf." + world.TUNName
	return []Incident{
		{
			Name: "diagnose-route-localnet", Title: "SYNs for 127.0.0.1 from outside",
			Finding: "other_drops",
			Explain: "The SYNs of 20 clients a second come in for 127.0.0.1, as after a DNAT rule; the server listens there.",
			Names:   []string{world.TUNName}, Advice: []string{device +
				".route_localnet to 1 (now 0)"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Sysctls("net.ipv4.conf.all.route_localnet", "0",
					device+".route_localnet", "0"); err != nil {
					return nil, err
				}
				return steady(w, world.Loopback4, every, 1), innocent(w, log)
			},
		},
		{
			Name:    "diagnose-moved-address",
			Title:   "SYNs for an address that is not here",
			Finding: "other_drops",
			Explain: "The SYNs of 20 clients a second come for an address that moved away; this host does not forward.",
			Names:   []string{"10.99.0.250"},
			Advice: []string{"ip address add 10.99.0.250 dev " + world.TUNName,
				device + ".forwarding to 1 (now 0)"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Sysctls("net.ipv4.ip_forward", "0",
					device+".forwarding", "0"); err != nil {
					return nil, err
				}
				gone := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, 250}),
					world.Server4.Port())
				return steady(w, gone, every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-own-address", Title: "SYNs from this host's own address",
			Finding: "other_drops",
			Explain: "SYNs come in, 20 a second, with an address of this host as their source.",
			Advice:  []string{device + ".accept_local to 1 (now 0)"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Sysctls("net.ipv4.conf.all.accept_local", "0",
					device+".accept_local", "0"); err != nil {
					return nil, err
				}
				port := uint16(40000)
				return func(ctx context.Context) error {
					return repeatEvery(ctx, w, every, func() error {
						port++
						return w.ClientFrom(netip.AddrPortFrom(world.ServerAddr4, port), world.Server4, uint32(port)).SYN()
					})
				}, innocent(w, log)
			},
		},
		{
			Name: "diagnose-ipv6-disabled", Title: "IPv6 is off on the device",
			Finding: "other_drops",
			Explain: "The SYNs of 20 clients a second come by IPv6 to a device on which that is turned off.",
			Advice: []string{"net.ipv6.conf." + world.TUNName +
				".disable_ipv6 to 0 (now 1)"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := world.HaveIPv6(); err != nil {
					return nil, err
				}
				if err := w.Sysctl("net.ipv6.conf."+world.TUNName+".disable_ipv6",
					"1"); err != nil {
					return nil, err
				}
				return steady(w, world.Server6, every, 1), innocent(w, log)
			},
		},
		{
			Name: "diagnose-old-connection", Title: "SYNs on established connections",
			Finding: "other_drops",
			Explain: "Clients that lost their state use ports again on which the server still has connections; no reset of theirs comes through.",
			Names: []string{"ESTAB",
				"lab-innocent"}, Advice: []string{"challenge ACK",
				"tcp_keepalive_time"},
			Begin: func(ctx context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return portsAgain(ctx, w, log,
					func(*world.Client) error { return nil })
			},
		},
		{
			Name:    "diagnose-never-closed",
			Title:   "SYNs on connections that the server never closes",
			Finding: "other_drops",
			Explain: "Clients close their connections, which the server does not, and use their ports again.",
			Names: []string{"CLOSE-WAIT",
				"lab-innocent"}, Advice: []string{"close() is to follow"},
			Begin: func(ctx context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return portsAgain(ctx, w, log, func(c *world.Client) error {
					fin, err := c.Next(world.FlagFIN|world.FlagACK, nil)
					if err != nil {
						return err
					}
					return c.Send(fin)
				})
			},
		},
		{
			Name:    "diagnose-time-wait-paws",
			Title:   "TIME_WAIT refuses older timestamps",
			Finding: "dropped_before_listener",
			Explain: "Clients behind one NAT address use ports again whose connections are in TIME_WAIT, with a timestamp that is older than that of the client before.",
			Names:   []string{"time_wait"}, Never: []string{"enable TCP timestamps",
				"tcp_timestamps=1"},
			Begin: func(ctx context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				if err := w.Sysctl("net.ipv4.tcp_timestamps", "1"); err != nil {
					return nil, err
				}
				if _, err := serve(w, "lab-innocent",
					server.ListenConfig{Backlog: 64,
						HangUp: true}); err != nil {
					return nil, err
				}
				first, err := w.TimeWait(ctx, world.Server4, true)
				if err != nil {
					return nil, err
				}
				log("%s is in TIME_WAIT", first.Local)
				const newer, older = 100000, 5000
				second := w.ClientFrom(first.Local, world.Server4,
					first.ISN+newer) // timestamps count from the sequence number
				second.Timestamps, second.TimestampOffset = true,
					^uint32(0)-newer-older
				return func(ctx context.Context) error {
					return repeatEvery(ctx, w,
						4*every, second.SYN)
				}, nil
			},
		},
		{
			Name:    "diagnose-socket-activation",
			Title:   "the backlog is the service manager's",
			Finding: "backlog_too_small",
			Explain: "A process called systemd calls listen(fd, 1) and does no more; its child accepts, in 4 ms a client, and 10 clients come together twice a second.",
			Advice:  []string{"of the .socket unit"},
			Never:   []string{"program's call of listen", "net.Listen"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "systemd",
					server.ListenConfig{Backlog: 1, Workers: 1,
						Pause: 4 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				log("process %d called listen(fd, 1), and its child accepts", s.PID)
				return steady(w, world.Server4, 500*time.Millisecond, 10), nil
			},
		},
	}
}

// portsAgain has clients connect to a server that keeps connections, do something with theirs, and
// then connect from the same ports as if they had never done so before.
func portsAgain(ctx context.Context, w *world.World, log func(string, ...any),
	leave func(*world.Client) error) (traffic, error) {
	if err := innocent(w, log); err != nil {
		return nil, err
	}
	old := w.Clients(world.Server4, 20)
	for _, c := range old {
		if err := c.Handshake(ctx); err != nil {
			return nil, err
		}
		if err := leave(c); err != nil {
			return nil, err
		}
	}
	if err := w.Barrier(ctx); err != nil {
		return nil, err
	}
	log("the server has %d connections", len(old))
	next := 0
	return func(ctx context.Context) error {
		return repeatEvery(ctx, w, 50*time.Millisecond, func() error {
			c := old[next%len(old)]
			next++
			return w.ClientFrom(c.Local, world.Server4, c.ISN+1<<30+uint32(next)).SYN()
		})
	}, nil
}
