// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
)

// unseenBy reports whether the hooks make no records of these, which the ready record
// says as well.
func unseenBy(hooks []event.Hook, r scenario.Expect) (what string, unseen bool) {
	for _, b := range blindTo(hooks, r) {
		if b.Unseen() {
			return fmt.Sprintf("%v at %v: %s", r.Cause, r.Stage, b.Why), true
		}
	}
	return "", false
}

// shownInstead counts records of other causes that some of these are said to show as.
func shownInstead(got *recorder, r scenario.Expect) uint64 {
	var n uint64
	for _, b := range blindTo(got.hooks, r) {
		for i := range got.drops {
			if d := &got.drops[i]; d.Cause != r.Cause && d.Stage == r.Stage &&
				d.Cause.String() == b.Shows {
				n++
			}
		}
	}
	return min(n, uint64(r.Count))
}

// blindTo lists what the hooks do not tell of these records.
func blindTo(hooks []event.Hook, r scenario.Expect) []event.Blind {
	var list []event.Blind
	for _, hook := range hooks {
		for _, b := range hook.Blind {
			// What is recorded by weaker proof is recorded.
			if b.Of(r.Cause, r.Stage) && (b.Part != "" || b.Shows != r.Cause.String()) {
				list = append(list, b)
			}
		}
	}
	return list
}

// uncovered says why the hooks cannot tell what a scenario is about, although they
// recorded everything else and all that they said they would. It is empty where the account differs
// for no such reason, or where enough is recorded to judge by.
func uncovered(v *Verdict, records []scenario.Expect, hooks []event.Hook) string {
	var (
		why     []string
		covered = make(map[event.Count]uint64) // what must be there, without counts
		may     []string                       // causes
		later   bool                           // a movement may wait for the next packet
	)
	for _, r := range records {
		may = append(may, r.Cause.String())
		blind := blindTo(hooks, r)
		if len(blind) == 0 {
			covered[event.Count{Cause: r.Cause, Stage: r.Stage,
				Action: r.Action}] += uint64(r.Count)
		}
		for _, b := range blind {
			may = append(may, b.Shows)
			later = later || b.Cause == event.CauseICMPError ||
				b.Shows == event.ShowsUnattributed
			if text := fmt.Sprintf("%v at %v shows as %s here: %s", r.Cause, r.Stage,
				b.Shows, b.Why); !slices.Contains(why, text) {
				why = append(why, text)
			}
		}
	}
	var recorded, expected uint64
	for _, r := range records {
		expected += uint64(r.Count)
	}
	for _, c := range v.Recorded {
		recorded += c.Count
		if !slices.Contains(may, c.Cause.String()) {
			return ""
		}
	}
	for want, count := range covered {
		for _, c := range v.Recorded {
			if c.Cause == want.Cause && (want.Stage == event.StageUnknown ||
				c.Stage == want.Stage) &&
				(want.Action == event.ActionUnknown || c.Action == want.Action) {
				count -= min(count, c.Count)
			}
		}
		if count > 0 {
			return ""
		}
	}
	if !v.Summary.Balanced && (!later || overExplained(v.Summary.Ledger)) {
		return ""
	}
	if recorded > expected || v.Passed && len(covered) > 0 {
		return ""
	}
	return strings.Join(why, "; ")
}

// allRecorded reports whether every record is there, whatever the hooks may not see of others.
func allRecorded(v *Verdict, records []scenario.Expect) bool {
	var expected, recorded uint64
	for _, r := range records {
		expected += uint64(r.Count)
	}
	for _, c := range v.Recorded {
		if slices.ContainsFunc(records,
			func(r scenario.Expect) bool { return r.Cause == c.Cause }) {
			recorded += c.Count
		}
	}
	return expected > 0 && recorded == expected
}

// overExplained reports whether the ledger has more than the kernel counted.
func overExplained(ledger []event.LedgerRow) bool {
	return slices.ContainsFunc(ledger, func(r event.LedgerRow) bool {
		return !r.Shared && !r.Gone && r.Synspy+r.Unattributed > r.Kernel
	})
}
