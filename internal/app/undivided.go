package app

import (
	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
)

// mix notes which listeners are of a SO_REUSEPORT group whose members the backend cannot tell apart. It lasts: what was
// counted meanwhile stays in their counts.
func (c *collector) mix(all []probe.Listener, undivided map[uint64]bool) {
	for i := range all {
		if !undivided[all[i].Socket] {
			continue
		}
		if r := c.rows[all[i].Socket]; r != nil {
			r.undivided = true
			continue
		}
		for _, r := range c.rows { // a filter keeps this member out
			if placeOf(&r.listener) == placeOf(&all[i]) {
				r.foreign = true
			}
		}
	}
}

// undivide takes out what was counted to some member of the group, maybe another one.
func undivide(l *diagnose.Listener) {
	l.Syns, l.Accepts, l.Finished = nil, nil, nil
	l.PeakAccepts, l.RetriesTold = 0, false
	for i := range l.Timeline {
		l.Timeline[i].Arrivals, l.Timeline[i].Retries, l.Timeline[i].Accepts = nil, nil, nil
	}
}

// groupSyns is how many SYNs came to all of those together, nil where there are none, or where not all of a group are
// under watch.
func (c *collector) groupSyns(seen map[uint64]event.Seen) *uint64 {
	var sum *uint64
	for _, r := range c.rows {
		if r.foreign {
			return nil
		}
		if r.undivided {
			add(&sum, seen[r.listener.Socket].Syn)
		}
	}
	return sum
}
