// SPDX-License-Identifier: Apache-2.0

package render

import (
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// sharedAtMost is how many rows of shared counters a table has that only other
// traffic moved: on a host with many namespaces there are hundreds.
const sharedAtMost = 4

// fewerShared is the ledger without most of those rows that say least: of shared
// counters of which synspy explains nothing, and that no cause which was counted
// moves. left is how many are left out.
func fewerShared(sum event.Summary) (rows []event.LedgerRow, left uint64) {
	var causes []string
	for _, c := range sum.Counts {
		causes = append(causes, c.Cause.SharedCounters()...)
	}
	others := 0
	for _, r := range sum.Ledger {
		if r.Shared && r.Synspy == 0 && !slices.Contains(causes, r.Counter) {
			if others == sharedAtMost {
				left++
				continue
			}
			others++
		}
		rows = append(rows, r)
	}
	return rows, left
}
