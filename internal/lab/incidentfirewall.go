// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// firewallIncidents are those in which netfilter stops SYNs, and in other ways than by dropping them.
func firewallIncidents() []Incident {
	const every = 50 * time.Millisecond
	stopped := func(prepare func(*World) error) func(context.Context, *World, func(string, ...any)) (traffic, error) {
		return func(_ context.Context, w *World, log func(string, ...any)) (traffic, error) {
			if err := prepare(w); err != nil {
				return nil, err
			}
			return w.steady(server4, every, 1), w.innocent(log)
		}
	}
	return []Incident{
		{
			Name: "diagnose-reject", Title: "a firewall rejects the SYNs by ICMP", Finding: "dropped_before_listener",
			Explain: "nftables rejects the SYNs of 20 clients a second as firewalld does; they see no route to the host.",
			Names:   []string{"icmp admin-prohibited", "input"},
			Begin: stopped(func(w *World) error {
				return w.firewall(server4, hookInput, rejectICMP(13, "icmp admin-prohibited", event.SeesUnreachable).verdict)
			}),
		},
		{
			Name: "diagnose-ingress-hook", Title: "a firewall drops the SYNs as the device receives them", Finding: "dropped_before_listener",
			Explain: "The rule is in the ingress hook of the device, in a table of family netdev.",
			Names:   []string{"ingress", "netdev", tunName},
			Begin:   stopped(func(w *World) error { return w.firewall(server4, hookIngress, drop().verdict) }),
		},
		{
			Name: "diagnose-queue", Title: "SYNs go to a queue that nobody reads", Finding: "dropped_before_listener",
			Explain: "A rule hands the SYNs of 20 clients a second to a netfilter queue (NFQUEUE), and the program that is to read it does not run.",
			Names:   []string{"nf_queue"},
			Begin:   stopped(prepareQueueOf(server4)),
		},
		{
			Name: "diagnose-queue-held", Title: "a program holds the SYNs", Finding: "no_syn_arrived",
			Explain: "The program that reads the netfilter queue gives no verdict: the SYNs neither die nor arrive.",
			Names:   []string{"netfilter queue 7"},
			Begin: stopped(func(w *World) error {
				if err := w.holdQueue(7); err != nil {
					return err
				}
				return prepareQueueOf(server4)(w)
			}),
		},
		{
			Name: "diagnose-conntrack-full", Title: "the connection tracking table is full", Finding: "dropped_before_listener",
			Explain: "The table holds as many entries as net.netfilter.nf_conntrack_max lets it; no rule drops anything.",
			Names:   []string{"net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count"},
			Begin:   stopped((*World).track),
		},
	}
}
