// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"slices"
	"sync"

	"github.com/synspy/synspy/internal/event"
)

// labRecords keeps what a trace of the whole machine says of the namespaces that are played in. Of
// others, which may be a scenario's quiet ones as well as anybody's, it keeps a few records each:
// that there is any is all that counts.
type labRecords struct {
	mu      sync.Mutex
	played  map[uint64]bool
	drops   map[uint64][]event.Drop // by namespace
	others  []uint64                // those not played in, the oldest first
	missing uint64                  // records of anybody that were held back or lost
}

const (
	mostOthers   = 256
	keptOfOthers = 8
)

// play begins to keep all records of a namespace; forget ends it.
func (r *labRecords) play(netns uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.played == nil {
		r.played, r.drops = make(map[uint64]bool), make(map[uint64][]event.Drop)
	}
	r.played[netns] = true
	delete(r.drops, netns) // of a namespace that had this number before
	r.others = slices.DeleteFunc(r.others, func(o uint64) bool { return o == netns })
}

func (r *labRecords) forget(netns uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.played, netns)
	delete(r.drops, netns)
}

func (r *labRecords) add(d *event.Drop) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drops == nil {
		r.drops = make(map[uint64][]event.Drop)
	}
	kept := r.drops[d.NetNS]
	if !r.played[d.NetNS] {
		if len(kept) == 0 {
			if len(r.others) == mostOthers {
				delete(r.drops, r.others[0])
				r.others = r.others[1:]
			}
			r.others = append(r.others, d.NetNS)
		}
		if len(kept) == keptOfOthers { // the latest
			kept = kept[:copy(kept, kept[1:])]
		}
	}
	r.drops[d.NetNS] = append(kept, *d)
}

// of lists the records of these namespaces that are no older.
func (r *labRecords) of(namespaces []uint64, since event.Time) (drops []event.Drop) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, netns := range namespaces {
		for _, d := range r.drops[netns] {
			if !d.Time.Before(since.Time) {
				drops = append(drops, d)
			}
		}
	}
	return drops
}

// held counts records that did not come.
func (r *labRecords) suppressed(h event.Suppressed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing += h.Count
}

// notCome is how many records did not come so far.
func (r *labRecords) notCome() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missing
}
