// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
)

// overflow is what no table had room for; nil where nothing is.
func (t *Trace) overflow(accepting map[uint64]listener.Accepting) (*event.Overflow, error) {
	missed, err := t.Probe.Missed()
	if err != nil {
		return nil, err
	}
	o := event.Overflow{Namespaces: missed.Untracked, Drops: missed.UnlistedDrops,
		Syns:    missed.UnlistedSyns,
		Accepts: accepting[0].Accepts, Unnamed: t.Listeners.Unnamed(),
		Changes:    missed.ListenersLost,
		Handshakes: missed.Forgotten, Uncounted: missed.RecordsUnowned}
	if o == (event.Overflow{}) {
		return nil, nil
	}
	return &o, nil
}
