// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// Began says when a namespace began, as far as it is known.
type Began uint8

// BeganUnknown is a namespace that was met later and may be older than the run.
// BeganBefore was there when Start got its list of holders and when counting began.
// BeganSince is sure to be younger: its number was another's then, and two that
// live at once never share one.
const (
	BeganUnknown Began = iota
	BeganBefore
	BeganSince
)

// Page is what was counted in one network namespace: in all, and, of that, what
// the filters kept out.
type Page struct {
	NetNS    uint64 // inode
	Began    Began
	Gone     bool // it ended before the closing values were taken
	Counted  [event.NumOutcomes]uint64
	Filtered [event.NumOutcomes]uint64
}

// Pages returns, after Stop, a page for each namespace that was tracked, by inode.
// One that ended and one that has its inode now are two pages.
func (l *Ledger) Pages() []Page {
	numbers := make(map[uint32]bool, len(l.entries))
	for _, b := range l.entries {
		numbers[b.Inode] = true
	}
	pages := make([]Page, 0, len(l.closed))
	for i := range l.closed {
		b := &l.closed[i]
		page := Page{NetNS: uint64(b.Inode), Gone: b.gone, Counted: b.outcomes,
			Filtered: b.filtered}
		_, tracked := l.entries[b.ID]
		_, listed := l.Idle[b.ID]
		switch {
		case tracked && listed:
			page.Began = BeganBefore
		case !tracked && numbers[b.Inode]:
			page.Began = BeganSince
		}
		pages = append(pages, page)
	}
	slices.SortFunc(pages, func(a, b Page) int { return cmp.Compare(a.NetNS, b.NetNS) })
	return pages
}
