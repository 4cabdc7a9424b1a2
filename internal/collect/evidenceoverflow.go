// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"github.com/synspy/synspy/internal/event"
)

// overflowed tells the evidence what had no room, and whether the listeners that the filters ask
// for may be concerned.
func (c *collector) overflowed(s *event.Summary) {
	c.Evidence.Overflow = s.Overflow
	if s.Overflow == nil || c.session.Listeners.All() {
		return
	}
	unfollowed := c.session.Probe.Unfollowed()
	aside := s.Overflow.Drops+s.Overflow.Unnamed+s.Overflow.Changes+s.Overflow.Uncounted == 0 &&
		len(c.Rows) > 0
	for _, r := range c.Rows {
		aside = aside && !unfollowed[r.Listener.NetNS] && c.counts(r)
	}
	c.Evidence.OverflowAside = aside
}

// counts tells whether the SYNs of a listener are counted as its own.
func (c *collector) counts(r *EvidenceRow) bool {
	return c.session.Listeners.Remembers(r.Listener.Socket) &&
		(c.Evidence.Overflow == nil || c.Evidence.Overflow.Syns == 0 || r.arrived.Syn > 0)
}

// lostSamples adds those of threads that had no room.
func (c *collector) lostSamples() {
	loss, err := c.stacks.sampler.Loss()
	if err != nil {
		c.session.Log.Debug("read what the sampler lost", "error", err)
	}
	if loss.Counts+loss.Stacks == 0 {
		return
	}
	var o event.Overflow
	if c.Evidence.Overflow != nil {
		o = *c.Evidence.Overflow
	}
	o.Samples = loss.Counts + loss.Stacks
	c.Evidence.Overflow = &o
}
