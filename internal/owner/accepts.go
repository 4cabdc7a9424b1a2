// SPDX-License-Identifier: Apache-2.0

package owner

const (
	acceptSlots = 16
	slotNs      = 10_000_000
)

// accepts remembers when a process accepted lately. One time stamp would not
// do: a record is rendered up to 100 ms after its drop, when the worker that
// slept for five seconds may just have woken and emptied its queue, and the age
// of *that* accept says nothing about the drop. Accepts within 10 ms share a
// slot, so that a burst cannot push the older ones out.
type accepts struct {
	slots  [acceptSlots]struct{ first, last uint64 }
	newest int
}

// add takes a CLOCK_MONOTONIC time in nanoseconds. CPUs report out of order;
// what is older than the newest is not news.
func (a *accepts) add(at uint64) {
	s := &a.slots[a.newest]
	switch {
	case s.last == 0:
		s.first, s.last = at, at
	case at <= s.last:
	case at < s.first+slotNs:
		s.last = at
	default:
		a.newest = (a.newest + 1) % acceptSlots
		a.slots[a.newest] = struct{ first, last uint64 }{at, at}
	}
}

// before returns the time of the last accept known not to be after at.
func (a *accepts) before(at uint64) (uint64, bool) {
	for i := range a.slots {
		s := a.slots[(a.newest+acceptSlots-i)%acceptSlots]
		switch {
		case s.last == 0:
			return 0, false
		case s.last <= at:
			return s.last, true
		case s.first <= at:
			return s.first, true
		}
	}
	return 0, false
}
