// SPDX-License-Identifier: Apache-2.0

package app

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
)

// overflow is what no table had room for; nil where nothing is.
func (t *trace) overflow(accepting map[uint64]probe.Accepting) (*event.Overflow, error) {
	missed, err := t.probe.Missed()
	if err != nil {
		return nil, err
	}
	o := event.Overflow{Namespaces: missed.Untracked, Drops: missed.UnlistedDrops, Syns: missed.UnlistedSyns,
		Accepts: accepting[0].Accepts, Unnamed: t.listeners.unnamed(), Changes: missed.ListenersLost,
		Handshakes: missed.Forgotten, Uncounted: missed.RecordsUnowned}
	if o == (event.Overflow{}) {
		return nil, nil
	}
	return &o, nil
}

// overflowed tells the evidence what had no room, and whether the listeners that the filters ask for may be
// concerned.
func (c *collector) overflowed(s *event.Summary) {
	c.evidence.Overflow = s.Overflow
	if s.Overflow == nil || c.session.listeners.all() {
		return
	}
	unfollowed := c.session.probe.Unfollowed()
	aside := s.Overflow.Drops+s.Overflow.Unnamed+s.Overflow.Changes+s.Overflow.Uncounted == 0 && len(c.rows) > 0
	for _, r := range c.rows {
		aside = aside && !unfollowed[r.listener.NetNS] && c.counts(r)
	}
	c.evidence.OverflowAside = aside
}

// counts tells whether the SYNs of a listener are counted as its own.
func (c *collector) counts(r *evidenceRow) bool {
	return c.session.listeners.remembers(r.listener.Socket) && (c.evidence.Overflow == nil || c.evidence.Overflow.Syns == 0 || r.arrived.Syn > 0)
}

// lostSamples adds those of threads that had no room.
func (c *collector) lostSamples() {
	loss, err := c.stacks.sampler.Loss()
	if err != nil {
		c.session.log.Debug("read what the sampler lost", "error", err)
	}
	if loss.Counts+loss.Stacks == 0 {
		return
	}
	var o event.Overflow
	if c.evidence.Overflow != nil {
		o = *c.evidence.Overflow
	}
	o.Samples = loss.Counts + loss.Stacks
	c.evidence.Overflow = &o
}
