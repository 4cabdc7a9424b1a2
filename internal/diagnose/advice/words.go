// SPDX-License-Identifier: Apache-2.0

// Package advice is how findings speak: numbers, places, and the settings to change by the servers'
// own names.
package advice

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// Many writes a count with its noun.
func Many(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return evidence.Thousands(n) + " " + noun + "s"
}

// ThousandsWere is a count with its verb: "1 was", "30 were".
func ThousandsWere(n uint64) string {
	if n == 1 {
		return "1 was"
	}
	return evidence.Thousands(n) + " were"
}

// Seconds writes milliseconds for a sentence: "4.9 s", "250 ms".
func Seconds(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", ms/1000), ".0") + " s"
}

// Percent is a part of a whole, in percent.
func Percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(int(part*1000/whole+0.5)) / 10
}

// Who names a process in a sentence: `nginx (pid 812)`.
func Who(p event.Process) string {
	if p.Comm == "" {
		return fmt.Sprintf("pid %d", p.PID)
	}
	return fmt.Sprintf("%s (pid %d)", evidence.Said(p.Comm), p.PID)
}

// Seen is one thing that was seen, as findings cite it.
func Seen(what string, v any, unit string) event.Evidence {
	return event.Evidence{What: what, Value: v, Unit: unit}
}

// Be and them go with a count.
func Be(n uint64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

// Them is the pronoun for so many.
func Them(n uint64) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// Bodies says how much died where nothing of it looks like a cause.
func Bodies(e *evidence.Evidence) string {
	died, harmed := evidence.DiedOfAll(e.Counts), evidence.Failed(e)
	switch {
	case died == 0:
		return "nothing was seen to be dropped"
	case harmed == 0:
		return fmt.Sprintf("%s died, and no handshake is known to have failed by it",
			Many(died, "packet"))
	}
	return Many(harmed, "handshake packet") + " died, but nothing that looks like a cause"
}

// Upper begins a sentence.
func Upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
