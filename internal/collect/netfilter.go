// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"maps"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/kernel"
)

// netfilterWatch is what connection tracking and rules had counted when the window began, by
// namespace.
type netfilterWatch map[uint64]netfilterCounts

type netfilterCounts struct {
	tracks    bool // there is connection tracking
	conntrack kernel.Conntrack
	rules     map[kernel.FirewallRule]uint64 // packets, by the rule without them
}

// countedHere reads them in the calling thread's namespace.
func (c *collector) countedHere() (n netfilterCounts) {
	n.conntrack, n.tracks = kernel.ConntrackHere()
	if !kernel.HasNFTables() { // asking for rules would load it
		return n
	}
	rules, err := kernel.FirewallRulesHere()
	if err != nil {
		c.session.Log.Debug("read firewall rules", "error", err)
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

// concerned lists the network namespaces that the diagnosis is about: those of listeners, and that
// of --netns; synspy's own if there are none.
func (c *collector) concerned(p *deathPlaces) []uint64 {
	all := make(map[uint64]bool)
	for _, r := range c.Rows {
		all[r.Listener.NetNS] = true
	}
	for key := range c.deaths {
		all[key.netns] = true
	}
	all[c.options.Watch.Filter.NetNS] = true
	delete(all, 0)
	if len(all) == 0 {
		all[p.own] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// openNetfilter takes the opening values.
func (c *collector) openNetfilter() {
	c.netfilter = make(netfilterWatch)
	places := c.newDeathPlaces()
	for _, netns := range append(c.concerned(places),
		places.own) { // what goes to containers passes through the latter
		if space := places.space(netns); space != nil {
			places.enter(netns, space, func() error {
				c.netfilter[netns] = c.countedHere()
				return nil
			})
		}
	}
}

// closeNetfilter tells what it counted since. Of a namespace that was not read at the start nothing
// is known.
func (c *collector) closeNetfilter(places *deathPlaces) {
	for _, netns := range c.concerned(places) {
		space := places.space(netns)
		if space == nil {
			continue
		}
		places.enter(netns, space, func() error {
			for _, q := range kernel.PacketQueuesHere() {
				c.Evidence.Queues = append(c.Evidence.Queues,
					evidence.PacketQueue{NetNS: netns, Number: q.Number,
						PortID:  q.PortID,
						Waiting: q.Waiting, Comm: kernel.Comm("/proc", q.PortID)})
			}
			if before, known := c.netfilter[netns]; known {
				c.counted(netns, before, c.countedHere())
			}
			return nil
		})
	}
}

// counted tells what was counted in between.
func (c *collector) counted(netns uint64, before, now netfilterCounts) {
	for rule, packets := range now.rules {
		was, known := before.rules[rule]
		if !known || packets < was { // a new one, or it was reset
			was = 0
		}
		if packets > was {
			c.Evidence.Rules = append(c.Evidence.Rules,
				evidence.FirewallRule{NetNS: netns, Family: rule.Family,
					Table: rule.Table,
					Chain: rule.Chain, Handle: rule.Handle, Packets: packets - was})
		}
	}
	slices.SortFunc(c.Evidence.Rules, func(a, b evidence.FirewallRule) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Chain, b.Chain),
			cmp.Compare(a.Handle, b.Handle))
	})
	b, n := before.conntrack, now.conntrack
	if !before.tracks || !now.tracks || n.Drops < b.Drops {
		return
	}
	c.Evidence.Conntrack = append(c.Evidence.Conntrack,
		evidence.Conntrack{NetNS: netns, Count: n.Count, Max: n.Max, Buckets: n.Buckets,
			Drops: n.Drops - b.Drops,
			EarlyDrops: n.EarlyDrops - min(n.EarlyDrops,
				b.EarlyDrops), InsertFailed: n.InsertFailed - min(n.InsertFailed, b.InsertFailed)})
}
