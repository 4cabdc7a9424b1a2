// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// doubt takes back what is proven where packets died of which it is not known whether they are among those asked for, or
// where a recording contradicts itself, and says so after the verdict.
func doubt(e *Evidence, all []*found, verdict string) string {
	if e.Differs > 0 {
		unprove(all, "a recording that is whole, as synspy trace --write leaves it")
		verdict += " The recording contradicts itself: its records do not say of " + many(e.Differs, "packet") +
			" what its summary says, so parts of it are missing or were changed."
	}
	if e.Unsure == 0 {
		return verdict
	}
	unprove(all, "a recording without records held back: synspy trace --rate 0, or with the filter given to the trace itself")
	if strings.Contains(verdict, e.Silence) && e.Silence != "" {
		return verdict
	}
	return verdict + " " + upper(unsure(e)) + "."
}

// unprove makes what is proven likely, and says what would settle it.
func unprove(all []*found, settles string) {
	for _, f := range all {
		if f.Confidence == event.ConfidenceProven {
			f.Confidence = event.ConfidenceLikely
		}
		if f.Settles == "" {
			f.Settles = settles
		}
	}
}

// unsure says of how many packets it is not known.
func unsure(e *Evidence) string {
	return many(e.Unsure, "more packet") + " " + be(e.Unsure) + " held back or lost, and the records do not say whether the filter asks for " + them(e.Unsure)
}
