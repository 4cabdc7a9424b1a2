// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/session"
)

// Clock places what happens in the steps of a window's timelines.
type Clock struct {
	Start time.Time
	Step  time.Duration // what a point of the timelines covers
	mono  uint64        // the start by CLOCK_MONOTONIC, ns
}

// newClock chooses steps of which the window has no more than a timeline may have points.
func newClock(window time.Duration) Clock {
	c := Clock{Step: 2 * session.PollInterval}
	for c.Step*event.MaxTimelinePoints <= window {
		c.Step += session.PollInterval
	}
	return c
}

// start makes now the start.
func (c *Clock) start() { c.Start, c.mono = time.Now(), kernel.Monotonic() }

// Offset is how long ago the start was, in ms.
func (c *Clock) Offset() uint32 { return uint32(time.Since(c.Start).Milliseconds()) }

// Since is the offset of a later CLOCK_MONOTONIC time, in ms.
func (c *Clock) Since(mono uint64) uint32 {
	return uint32((mono - c.mono) / uint64(time.Millisecond))
}
