package app

import (
	"maps"
	"slices"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/kernel"
)

// netfilterWatch is what connection tracking had counted when the window began, by namespace.
type netfilterWatch map[uint64]kernel.Conntrack

// concerned lists the network namespaces that the diagnosis is about: those of listeners, and that of --netns; synspy's own if there are none.
func (c *collector) concerned(p *deathPlaces) []uint64 {
	all := make(map[uint64]bool)
	for _, r := range c.rows {
		all[r.listener.NetNS] = true
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
	for _, netns := range append(c.concerned(places), places.own) { // what goes to containers passes through the latter
		if space := places.space(netns); space != nil {
			places.enter(netns, space, func() error {
				if now, ok := kernel.ConntrackHere(); ok {
					c.netfilter[netns] = now
				}
				return nil
			})
		}
	}
}

// closeNetfilter tells what it counted since. Of a namespace that was not read at the start nothing is known.
func (c *collector) closeNetfilter(places *deathPlaces) {
	for _, netns := range c.concerned(places) {
		space := places.space(netns)
		if space == nil {
			continue
		}
		places.enter(netns, space, func() error {
			for _, q := range kernel.PacketQueuesHere() {
				c.evidence.Queues = append(c.evidence.Queues, diagnose.PacketQueue{NetNS: netns, Number: q.Number, PortID: q.PortID,
					Waiting: q.Waiting, Comm: kernel.Comm("/proc", q.PortID)})
			}
			before, known := c.netfilter[netns]
			now, ok := kernel.ConntrackHere()
			if !known || !ok || now.Drops < before.Drops {
				return nil
			}
			c.evidence.Conntrack = append(c.evidence.Conntrack, diagnose.Conntrack{NetNS: netns, Count: now.Count, Max: now.Max,
				Drops: now.Drops - before.Drops, EarlyDrops: now.EarlyDrops - min(now.EarlyDrops, before.EarlyDrops),
				InsertFailed: now.InsertFailed - min(now.InsertFailed, before.InsertFailed)})
			return nil
		})
	}
}
