// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"log/slog"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/kernel"
)

// Netfilter is what connection tracking and rules had counted when the window began, by namespace.
type Netfilter map[uint64]netfilterCounts

type netfilterCounts struct {
	tracks    bool // there is connection tracking
	conntrack kernel.Conntrack
	rules     map[kernel.FirewallRule]uint64 // packets, by the rule without them
}

// countedHere reads them in the calling thread's namespace.
func countedHere(log *slog.Logger) (n netfilterCounts) {
	n.conntrack, n.tracks = kernel.ConntrackHere()
	if !kernel.HasNFTables() { // asking for rules would load it
		return n
	}
	rules, err := kernel.FirewallRulesHere()
	if err != nil {
		log.Debug("read firewall rules", "error", err)
		return n
	}
	n.rules = make(map[kernel.FirewallRule]uint64, len(rules))
	for _, rule := range rules {
		packets := rule.Packets
		rule.Packets = 0
		n.rules[rule] = packets
	}
	return n
}

// OpenNetfilter takes the opening values in these namespaces, and in synspy's own, which what goes
// to containers passes through.
func OpenNetfilter(places *Places, concerned []uint64) Netfilter {
	w := make(Netfilter)
	for _, netns := range append(slices.Clip(concerned), places.Own) {
		places.Enter(netns, func() error {
			w[netns] = countedHere(places.log)
			return nil
		})
	}
	return w
}

// Counted is what was counted since.
type Counted struct {
	Rules     []evidence.FirewallRule
	Conntrack []evidence.Conntrack
	Queues    []evidence.PacketQueue
}

// Evidence returns what these namespaces counted since. Of one that was not read at the start
// nothing is known.
func (w Netfilter) Evidence(places *Places, concerned []uint64) (c Counted) {
	for _, netns := range concerned {
		places.Enter(netns, func() error {
			for _, q := range kernel.PacketQueuesHere() {
				c.Queues = append(c.Queues, evidence.PacketQueue{NetNS: netns,
					Number: q.Number, PortID: q.PortID, Waiting: q.Waiting,
					Comm: kernel.Comm("/proc", q.PortID)})
			}
			if before, known := w[netns]; known {
				c.add(netns, before, countedHere(places.log))
			}
			return nil
		})
	}
	return c
}

// add adds what a namespace counted in between.
func (c *Counted) add(netns uint64, before, now netfilterCounts) {
	for rule, packets := range now.rules {
		was, known := before.rules[rule]
		if !known || packets < was { // a new one, or it was reset
			was = 0
		}
		if packets > was {
			c.Rules = append(c.Rules, evidence.FirewallRule{NetNS: netns,
				Family: rule.Family, Table: rule.Table, Chain: rule.Chain,
				Handle: rule.Handle, Packets: packets - was})
		}
	}
	slices.SortFunc(c.Rules, func(a, b evidence.FirewallRule) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Chain, b.Chain),
			cmp.Compare(a.Handle, b.Handle))
	})
	b, n := before.conntrack, now.conntrack
	if !before.tracks || !now.tracks || n.Drops < b.Drops {
		return
	}
	c.Conntrack = append(c.Conntrack, evidence.Conntrack{NetNS: netns, Count: n.Count,
		Max: n.Max, Buckets: n.Buckets, Drops: n.Drops - b.Drops,
		EarlyDrops:   n.EarlyDrops - min(n.EarlyDrops, b.EarlyDrops),
		InsertFailed: n.InsertFailed - min(n.InsertFailed, b.InsertFailed)})
}
