// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"net/netip"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// playRPFilter adds a second device, so that the clients' addresses have a
// route, but not through the device that their SYNs come from: what asymmetric
// routing looks like to fib_validate_source. IPv6 has no such setting.
func playRPFilter(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const syns, device = 4, "lab1"
	var none scenario.Expectation
	server, err := scenario.IdleServer(w, world.Any4, world.Backlog)
	if err != nil {
		return none, err
	}
	if err := w.Asymmetric(device); err != nil {
		return none, err
	}
	before, err := w.Stats()
	if err != nil {
		return none, err
	}
	var dead []*world.Client
	for i := range syns {
		local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 98, 0, byte(2 + i)}), 20000)
		c := w.ClientFrom(local, world.Server4, uint32(i)<<16)
		if err := c.SYN(); err != nil {
			return none, err
		}
		dead = append(dead, c)
	}
	answered, err := w.Burst(ctx, world.Server4, 2)
	if err != nil {
		return none, err
	}
	if err := scenario.WantAnswers(answered, len(answered)); err != nil {
		return none, err
	}
	if err := scenario.WantAction(event.ActionDropped, dead...); err != nil {
		return none, err
	}
	if err := w.WantMoved(before, world.Stats{"IPReversePathFilter": syns}); err != nil {
		return none, err
	}
	log("%d SYNs came in through %s, where the route back to 10.98.0.0/24 is %s; listener of process %d saw none", syns, world.TUNName, device, server.PID)
	return scenario.Ingress(event.CauseRPFilter, event.ActionDropped, dead...), nil
}
