// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/world"
)

// firewallIncidents are those in which netfilter stops SYNs, and in other ways than by dropping
// them.
func firewallIncidents() []Incident {
	const every = 50 * time.Millisecond
	stopped := func(prepare func(*world.World) error) func(context.Context, *world.World,
		func(string, ...any)) (traffic, error) {
		return func(_ context.Context, w *world.World, log func(string, ...any)) (traffic,
			error) {
			if err := prepare(w); err != nil {
				return nil, err
			}
			return steady(w, world.Server4, every, 1), innocent(w, log)
		}
	}
	return []Incident{
		{
			Name: "diagnose-reject", Title: "a firewall rejects the SYNs by ICMP",
			Finding: "dropped_before_listener",
			Explain: "nftables rejects the SYNs of 20 clients a second as firewalld does; they see no route to the host.",
			Names:   []string{"icmp admin-prohibited", "input"},
			Begin: stopped(func(w *world.World) error {
				return w.Firewall(world.Server4, world.HookInput,
					world.RejectICMP(13, "icmp admin-prohibited",
						event.SeesUnreachable).Verdict)
			}),
		},
		{
			Name:    "diagnose-ingress-hook",
			Title:   "a firewall drops the SYNs as the device receives them",
			Finding: "dropped_before_listener",
			Explain: "The rule is in the ingress hook of the device, in a table of family netdev.",
			Names:   []string{"ingress", "netdev", world.TUNName},
			Begin: stopped(func(w *world.World) error {
				return w.Firewall(world.Server4, world.HookIngress,
					world.Drop().Verdict)
			}),
		},
		{
			Name: "diagnose-queue", Title: "SYNs go to a queue that nobody reads",
			Finding: "dropped_before_listener",
			Explain: "A rule hands the SYNs of 20 clients a second to a netfilter queue (NFQUEUE), and the program that is to read it does not run.",
			Names:   []string{"nf_queue"},
			Begin:   stopped(world.PrepareQueueOf(world.Server4)),
		},
		{
			Name: "diagnose-queue-held", Title: "a program holds the SYNs",
			Finding: "no_syn_arrived",
			Explain: "The program that reads the netfilter queue gives no verdict: the SYNs neither die nor arrive.",
			Names:   []string{"netfilter queue 7"},
			Begin: stopped(func(w *world.World) error {
				if err := w.HoldQueue(7); err != nil {
					return err
				}
				return world.PrepareQueueOf(world.Server4)(w)
			}),
		},
		{
			Name:    "diagnose-conntrack-full",
			Title:   "the connection tracking table is full",
			Finding: "dropped_before_listener",
			Explain: "The table holds as many entries as net.netfilter.nf_conntrack_max lets it; no rule drops anything.",
			Names: []string{"net.netfilter.nf_conntrack_max",
				"net.netfilter.nf_conntrack_count"},
			Begin: stopped((*world.World).Track),
		},
	}
}
