// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"cmp"
	"errors"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/message"
	"math"
	"net/netip"
	"slices"
)

// Undivided tells which of these listeners share their place with another by SO_REUSEPORT, where it is not known which of
// them a SYN or a connection came to: tracepoints are not given the socket, and all is counted to some member. lived says from
// when to when each listened, by CLOCK_MONOTONIC, 0 for always: one that follows another there shares nothing with it. It may be nil
// where all of them do now.
func (c *Counters) Undivided(list []message.Listener,
	lived func(socket uint64) (from, to uint64)) map[uint64]bool {
	if c.Plan.Backend != facts.Tracepoint {
		return nil
	}
	return sharing(list, lived)
}

// UndividedNow is Undivided of all listeners that there are; none where they cannot be listed.
func (c *Counters) UndividedNow() (map[uint64]bool, error) {
	if c.Plan.Backend != facts.Tracepoint {
		return nil, nil
	}
	var grouped []message.Listener
	err := holders.Each(c.Collection, func(h *holders.Holder) {
		if h.Listener.Reuseport.Members > 1 {
			grouped = append(grouped, h.Listener)
		}
	})
	if err != nil && !errors.Is(err, holders.ErrNoIterator) {
		return nil, err
	}
	return sharing(grouped, nil), nil
}

// sharing lists the listeners that were not the only one at their place all the time.
func sharing(list []message.Listener, lived func(socket uint64) (from, to uint64)) map[uint64]bool {
	type place struct {
		netns  uint64
		addr   netip.Addr
		port   uint16
		device uint32
	}
	type life struct{ socket, from, to uint64 }
	at := make(map[place][]life, len(list))
	for i := range list {
		l := &list[i]
		one := life{socket: l.Socket}
		if lived != nil {
			one.from, one.to = lived(l.Socket)
		}
		if one.to == 0 {
			one.to = math.MaxUint64
		}
		key := place{l.NetNS, l.Addr, l.Port, l.Device}
		at[key] = append(at[key], one)
	}
	shared := make(map[uint64]bool)
	for _, lives := range at {
		slices.SortFunc(lives, func(a, b life) int { return cmp.Compare(a.from, b.from) })
		last := lives[0] // to end of those before
		for _, next := range lives[1:] {
			// One socket has an entry for each of its holders.
			if next.socket != last.socket && next.from < last.to {
				shared[last.socket], shared[next.socket] = true, true
			}
			if next.to > last.to {
				last = next
			}
		}
	}
	return shared
}
