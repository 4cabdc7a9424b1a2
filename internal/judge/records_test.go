// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// TestLabRecordsAreBounded: a soak keeps no records of the whole machine, however long it takes and
// whoever drops.
func TestLabRecordsAreBounded(t *testing.T) {
	var r labRecords
	const mine, quiet = 7, 8
	begun := event.Time{Time: time.Now()}
	drop := event.Drop{Time: begun}
	r.play(mine)
	for i := range 20_000 {
		drop.NetNS = uint64(100 + i%3000)
		r.add(&drop)
		if i%100 == 0 {
			drop.NetNS = mine
			r.add(&drop)
		}
	}
	drop.NetNS = quiet
	r.add(&drop)
	total := 0
	for _, kept := range r.drops {
		total += len(kept)
	}
	if most := 200 + mostOthers*keptOfOthers; total > most || len(r.others) > mostOthers ||
		len(r.drops) > mostOthers+1 {
		t.Errorf("%d records of %d namespaces are kept, %d at most", total, len(r.drops),
			most)
	}
	if n := len(r.of([]uint64{mine}, begun)); n != 200 {
		t.Errorf("of the scenario %d records of 200", n)
	}
	if n := len(r.of([]uint64{mine, quiet}, begun)); n != 201 {
		t.Errorf("with a quiet namespace's %d records, want 201", n)
	}
	if n := len(r.of([]uint64{mine}, event.Time{Time: begun.Add(time.Second)})); n != 0 {
		t.Errorf("%d records of before", n)
	}
	r.forget(mine)
	r.play(100) // a namespace of the lab may get the number of one that was anybody's
	if n := len(r.of([]uint64{mine, 100}, begun)); n != 0 {
		t.Errorf("%d records of what was judged, or of another namespace", n)
	}
}
