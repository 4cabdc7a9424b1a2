// SPDX-License-Identifier: Apache-2.0

package session

import (
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/listener"
)

// ReadAccepts asks when the listener's holders last accepted, for a record of what died
// at the given CLOCK_MONOTONIC time. One reading serves all records of before it.
func (s *Session) ReadAccepts(socket, died uint64) {
	if s.AcceptsRead[socket] > died {
		return
	}
	if len(s.AcceptsRead) > MaxKnown {
		clear(s.AcceptsRead)
	}
	s.AcceptsRead[socket] = kernel.Monotonic()
	last, err := s.Probe.LastAccepts(socket, s.Owners.Holders(socket))
	if err != nil {
		s.Log.Warn("read who accepted", "error", err)
	}
	for _, l := range last {
		s.Owners.Accepted(socket, l.PID, l.Start, l.Times...)
	}
}

// AcceptingOf is a listener's accept side as records show it; nil where nothing of it
// is known.
func AcceptingOf(rows map[uint64]listener.Accepting, socket uint64) *event.Accepting {
	a, ok := rows[socket]
	if !ok {
		return nil
	}
	return AcceptingShown(&a)
}

// AcceptingShown is the accept side as records show it.
func AcceptingShown(a *listener.Accepting) *event.Accepting {
	shown := &event.Accepting{Arrivals: a.Arrivals, SynAcksAgain: a.Again, SynsAgain: a.Asked,
		Proof: a.Proof}
	if a.Proof != event.ProofUnknown {
		shown.Accepts = &a.Accepts
	}
	if a.Timed {
		shown.Waits, shown.WaitedUs = event.WaitBuckets(a.Waits[:]), microseconds(a.Waited)
	}
	if a.Gap > 0 {
		shown.LongestGapMs = milliseconds(a.Gap)
	}
	if a.Last > 0 {
		shown.LastAcceptMs = milliseconds(kernel.Monotonic() - a.Last)
	}
	if a.Marked {
		shown.AcceptMax, shown.SynMax = &a.AcceptMax, &a.SynMax
	}
	return shown
}

func microseconds(ns uint64) *uint64 {
	us := ns / uint64(time.Microsecond)
	return &us
}

func milliseconds(ns uint64) *uint64 {
	ms := ns / uint64(time.Millisecond)
	return &ms
}
