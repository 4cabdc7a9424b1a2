// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net/netip"
	"time"
)

// reasonIncidents are SYNs that the kernel drops for a reason with a setting or a cure of its own, and a setting that
// is not where the server is.
func reasonIncidents() []Incident {
	const every = 50 * time.Millisecond
	device := "net.ipv4.conf." + tunName
	return []Incident{
		{
			Name: "diagnose-route-localnet", Title: "SYNs for 127.0.0.1 from outside", Finding: "other_drops",
			Explain: "The SYNs of 20 clients a second come in for 127.0.0.1, as after a DNAT rule; the server listens there.",
			Names:   []string{tunName}, Advice: []string{device + ".route_localnet to 1 (now 0)"},
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				if err := w.sysctls("net.ipv4.conf.all.route_localnet", "0", device+".route_localnet", "0"); err != nil {
					return nil, err
				}
				return w.steady(loopback4, every, 1), w.innocent(log)
			},
		},
		{
			Name: "diagnose-moved-address", Title: "SYNs for an address that is not here", Finding: "other_drops",
			Explain: "The SYNs of 20 clients a second come for an address that moved away; this host does not forward.",
			Names:   []string{"10.99.0.250"}, Advice: []string{"ip address add 10.99.0.250 dev " + tunName, device + ".forwarding to 1 (now 0)"},
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				if err := w.sysctls("net.ipv4.ip_forward", "0", device+".forwarding", "0"); err != nil {
					return nil, err
				}
				gone := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, 250}), server4.Port())
				return w.steady(gone, every, 1), w.innocent(log)
			},
		},
		{
			Name: "diagnose-own-address", Title: "SYNs from this host's own address", Finding: "other_drops",
			Explain: "SYNs come in, 20 a second, with an address of this host as their source.",
			Advice:  []string{device + ".accept_local to 1 (now 0)"},
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				if err := w.sysctls("net.ipv4.conf.all.accept_local", "0", device+".accept_local", "0"); err != nil {
					return nil, err
				}
				port := uint16(40000)
				return func(ctx context.Context) error {
					return w.every(ctx, every, func() error {
						port++
						return w.ClientFrom(netip.AddrPortFrom(ServerAddr4, port), server4, uint32(port)).SYN()
					})
				}, w.innocent(log)
			},
		},
		{
			Name: "diagnose-ipv6-disabled", Title: "IPv6 is off on the device", Finding: "other_drops",
			Explain: "The SYNs of 20 clients a second come by IPv6 to a device on which that is turned off.",
			Advice:  []string{"net.ipv6.conf." + tunName + ".disable_ipv6 to 0 (now 1)"},
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				if err := haveIPv6(); err != nil {
					return nil, err
				}
				if err := w.Sysctl("net.ipv6.conf."+tunName+".disable_ipv6", "1"); err != nil {
					return nil, err
				}
				return w.steady(server6, every, 1), w.innocent(log)
			},
		},
		{
			Name: "diagnose-old-connection", Title: "SYNs on established connections", Finding: "other_drops",
			Explain: "Clients that lost their state use ports again on which the server still has connections; no reset of theirs comes through.",
			Names:   []string{"ESTAB", "lab-innocent"}, Advice: []string{"challenge ACK", "tcp_keepalive_time"},
			Begin: func(ctx context.Context, w *World, log func(string, ...any)) (traffic, error) {
				return w.portsAgain(ctx, log, func(*Client) error { return nil })
			},
		},
		{
			Name: "diagnose-never-closed", Title: "SYNs on connections that the server never closes", Finding: "other_drops",
			Explain: "Clients close their connections, which the server does not, and use their ports again.",
			Names:   []string{"CLOSE-WAIT", "lab-innocent"}, Advice: []string{"close() is to follow"},
			Begin: func(ctx context.Context, w *World, log func(string, ...any)) (traffic, error) {
				return w.portsAgain(ctx, log, func(c *Client) error {
					fin, err := c.next(flagFIN|flagACK, nil)
					if err != nil {
						return err
					}
					return c.send(fin)
				})
			},
		},
		{
			Name: "diagnose-time-wait-paws", Title: "TIME_WAIT refuses older timestamps", Finding: "dropped_before_listener",
			Explain: "Clients behind one NAT address use ports again whose connections are in TIME_WAIT, with a timestamp that is older than that of the client before.",
			Names:   []string{"time_wait"}, Never: []string{"enable TCP timestamps", "tcp_timestamps=1"},
			Begin: func(ctx context.Context, w *World, log func(string, ...any)) (traffic, error) {
				if err := w.Sysctl("net.ipv4.tcp_timestamps", "1"); err != nil {
					return nil, err
				}
				if _, err := w.serve("lab-innocent", ListenConfig{Backlog: 64, HangUp: true}); err != nil {
					return nil, err
				}
				first, err := w.timeWait(ctx, server4, true)
				if err != nil {
					return nil, err
				}
				log("%s is in TIME_WAIT", first.Local)
				const newer, older = 100000, 5000
				second := w.ClientFrom(first.Local, server4, first.ISN+newer) // timestamps count from the sequence number
				second.Timestamps, second.TimestampOffset = true, ^uint32(0)-newer-older
				return func(ctx context.Context) error { return w.every(ctx, 4*every, second.SYN) }, nil
			},
		},
		{
			Name: "diagnose-socket-activation", Title: "the backlog is the service manager's", Finding: "backlog_too_small",
			Explain: "A process called systemd calls listen(fd, 1) and does no more; its child accepts, in 4 ms a client, and 10 clients come together twice a second.",
			Advice:  []string{"of the .socket unit"}, Never: []string{"program's call of listen", "net.Listen"},
			Begin: func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
				s, err := w.serve("systemd", ListenConfig{Backlog: 1, Workers: 1, Pause: 4 * time.Millisecond})
				if err != nil {
					return nil, err
				}
				log("process %d called listen(fd, 1), and its child accepts", s.PID)
				return w.steady(server4, 500*time.Millisecond, 10), nil
			},
		},
	}
}

// portsAgain has clients connect to a server that keeps connections, do something with theirs, and then connect from
// the same ports as if they had never done so before.
func (w *World) portsAgain(ctx context.Context, log func(string, ...any), leave func(*Client) error) (traffic, error) {
	if err := w.innocent(log); err != nil {
		return nil, err
	}
	old := w.clients(server4, 20)
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
		return w.every(ctx, 50*time.Millisecond, func() error {
			c := old[next%len(old)]
			next++
			return w.ClientFrom(c.Local, server4, c.ISN+1<<30+uint32(next)).SYN()
		})
	}, nil
}
