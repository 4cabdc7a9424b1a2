// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net/netip"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// playRPFilter adds a second device, so that the clients' addresses have a
// route, but not through the device that their SYNs come from: what asymmetric
// routing looks like to fib_validate_source. IPv6 has no such setting.
func playRPFilter(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const syns, device = 4, "lab1"
	var none Expectation
	server, err := w.idleServer(any4, backlog)
	if err != nil {
		return none, err
	}
	if err := w.asymmetric(device); err != nil {
		return none, err
	}
	before, err := w.stats()
	if err != nil {
		return none, err
	}
	var dead []*Client
	for i := range syns {
		local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 98, 0, byte(2 + i)}), 20000)
		c := w.ClientFrom(local, server4, uint32(i)<<16)
		if err := c.SYN(); err != nil {
			return none, err
		}
		dead = append(dead, c)
	}
	answered, err := w.Burst(ctx, server4, 2)
	if err != nil {
		return none, err
	}
	if err := wantAnswers(answered, len(answered)); err != nil {
		return none, err
	}
	if err := wantFate(event.ActionDropped, dead...); err != nil {
		return none, err
	}
	if err := w.wantMoved(before, stats{"IPReversePathFilter": syns}); err != nil {
		return none, err
	}
	log("%d SYNs came in through %s, where the route back to 10.98.0.0/24 is %s; listener of process %d saw none", syns, tunName, device, server.PID)
	return ingress(event.CauseRPFilter, event.ActionDropped, dead...), nil
}

// asymmetric gives 10.98.0.0/24 a route through a second device, and lets the TUN device
// refuse what comes from there.
func (w *World) asymmetric(device string) error {
	if err := w.Do(func() error {
		tun, err := openTUN(device)
		if err != nil {
			return err
		}
		w.keep(tun)
		return configure4(device, netip.AddrFrom4([4]byte{10, 98, 0, 1}), 24)
	}); err != nil {
		return err
	}
	return w.Sysctl("net.ipv4.conf."+tunName+".rp_filter", "1")
}

// asymmetricTraffic is clients of that network.
func (w *World) asymmetricTraffic(every time.Duration) traffic {
	n := uint16(0)
	c := &crowd{w: w, server: server4, local: func() netip.AddrPort {
		n++
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 98, 0, byte(2 + n%200)}), 20000+n)
	}}
	return c.steady(every, 1)
}
