// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"fmt"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

// Bounds of what is believed of a file of records: sums of what is below them do not overflow.
const (
	mostPackets = 1 << 53 // beyond it not every number is one in JSON; a machine takes decades to get there
	mostTime    = 100 * 365 * 24 * time.Hour
)

// believe refuses records whose numbers nobody can have counted, one by one and, of those held
// back, in all.
func (r *replay) believe(record any) error {
	switch record := record.(type) {
	case *event.Suppressed:
		if r.held += min(record.Count, mostPackets+1); r.held > mostPackets {
			return unbelievable("packets held back", max(record.Count, r.held))
		}
	case *event.Summary:
		if err := believeSummary(record); err != nil {
			r.summaries++ // there is one
			return err
		}
	}
	return nil
}

func believeSummary(s *event.Summary) error {
	if s.DurationMs < 0 || s.DurationMs > mostTime.Milliseconds() {
		return fmt.Errorf("a duration of %d ms is none that a recording can have",
			s.DurationMs)
	}
	var err error
	check := func(what string, numbers ...uint64) {
		var sum uint64
		for _, n := range numbers {
			if sum += min(n, mostPackets+1); sum > mostPackets && err == nil {
				err = unbelievable(what, max(n, sum))
			}
		}
	}
	counts := make([]uint64, len(s.Counts))
	for i, c := range s.Counts {
		counts[i] = c.Count
	}
	check("packets counted", counts...)
	check("records", s.Delivered, s.Suppressed, s.Lost)
	check("SYN cookies", s.Cookies)
	check("handshakes", s.Handshakes)
	check("packets unattributed", s.Unattributed)
	var seen []uint64
	for _, row := range s.Seen {
		seen = append(seen, row.Syn, row.Ack)
	}
	check("packets seen", seen...)
	for _, row := range s.Ledger {
		check(row.Counter, row.Kernel)
		check(row.Counter, row.Synspy, row.Unattributed)
		check(row.Counter, row.Filtered)
	}
	return err
}

func unbelievable(what string, n uint64) error {
	return fmt.Errorf("%s %s are more than can have been counted", render.Thousands(n), what)
}
