// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// overflow says what the tables had no room for, where a packet that died may be among it: then
// nothing else may be said of it, and health only of listeners that had room.
func overflow(e *evidence.Evidence) []*Found {
	if !e.Overflow.Hides() {
		return nil
	}
	weight := ^uint64(0) - 1
	if e.OverflowAside {
		weight = 0
	}
	f := newFound(event.FindingOtherDrops, weight)
	f.Severity, f.Confidence, f.Doubt = event.SeverityNote, event.ConfidencePossible, true
	o := e.Overflow
	for _, of := range []struct {
		what  string
		n     uint64
		units string
	}{
		{"of network namespaces that had no room", o.Namespaces,
			"packets and counter movements"},
		{"dropped, of listeners that had no room", o.Drops,
			"packets"}, {"SYNs to listeners that had no room", o.Syns, "SYNs"},
		{"meetings of listeners beyond as many as are remembered", o.Unnamed, "listeners"},
		{"openings and closings of listeners that were lost", o.Changes, "events"},
		{"dropped, in the ledger alone", o.Uncounted, "packets"},
	} {
		if of.n > 0 {
			f.saw(of.what, of.n, of.units)
		}
	}
	f.Title = "there was more than synspy's tables have room for"
	f.Because = f.Title + ": whether clients lost anything to what had none is not known"
	f.fix("name what is in question: synspy diagnose --port PORT (or --netns, --container) keeps room for it")
	f.Settles = strings.Join(o.Sentences(), "; ")
	return []*Found{f}
}

// hidden reports whether what is asked for may have lost packets to a table that was full.
func hidden(e *evidence.Evidence) bool { return e.Overflow.Hides() && !e.OverflowAside }

// Doubt takes back what is proven where packets died of which it is not known whether they are
// among those asked for, or where a recording contradicts itself, and says so after the verdict.
func Doubt(e *evidence.Evidence, all []*Found, verdict string) string {
	if e.Differs > 0 {
		unprove(all, "a recording that is whole, as synspy trace --write leaves it")
		verdict += " The recording contradicts itself: its records do not say of " +
			advice.Many(e.Differs, "packet") +
			" what its summary says, so parts of it are missing or were changed."
	}
	if e.Unsure == 0 {
		return verdict
	}
	unprove(all,
		"a recording without records held back: synspy trace --rate 0, or with the filter given to the trace itself")
	if strings.Contains(verdict, e.Silence) && e.Silence != "" {
		return verdict
	}
	return verdict + " " + advice.Upper(Unsure(e)) + "."
}

// unprove makes what is proven likely, and says what would settle it.
func unprove(all []*Found, settles string) {
	for _, f := range all {
		if f.Confidence == event.ConfidenceProven {
			f.Confidence = event.ConfidenceLikely
		}
		if f.Settles == "" {
			f.Settles = settles
		}
	}
}

// Unsure says of how many packets it is not known.
func Unsure(e *evidence.Evidence) string {
	return advice.Many(e.Unsure, "more packet") + " " + advice.Be(e.Unsure) +
		" held back or lost, and the records do not say whether the filter asks for " +
		advice.Them(e.Unsure)
}
