// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// overflow says what the tables had no room for, where a packet that died may be among it: then nothing else
// may be said of it, and health only of listeners that had room.
func overflow(e *Evidence) []*found {
	if !e.Overflow.Hides() {
		return nil
	}
	weight := ^uint64(0) - 1
	if e.OverflowAside {
		weight = 0
	}
	f := newFound(event.FindingOtherDrops, weight)
	f.Severity, f.Confidence, f.doubt = event.SeverityNote, event.ConfidencePossible, true
	o := e.Overflow
	for _, of := range []struct {
		what  string
		n     uint64
		units string
	}{
		{"of network namespaces that had no room", o.Namespaces, "packets and counter movements"},
		{"dropped, of listeners that had no room", o.Drops, "packets"}, {"SYNs to listeners that had no room", o.Syns, "SYNs"},
		{"meetings of listeners beyond as many as are remembered", o.Unnamed, "listeners"},
		{"openings and closings of listeners that were lost", o.Changes, "events"},
		{"dropped, in the ledger alone", o.Uncounted, "packets"},
	} {
		if of.n > 0 {
			f.saw(of.what, of.n, of.units)
		}
	}
	f.Title = "there was more than synspy's tables have room for"
	f.because = f.Title + ": whether clients lost anything to what had none is not known"
	f.fix("name what is in question: synspy diagnose --port PORT (or --netns, --container) keeps room for it")
	f.Settles = strings.Join(o.Sentences(), "; ")
	return []*found{f}
}

// hidden tells whether what is asked for may have lost packets to a table that was full.
func hidden(e *Evidence) bool { return e.Overflow.Hides() && !e.OverflowAside }
