// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestOverflow holds that nothing is said to be healthy, or not to have arrived, of what a table
// had no room for.
func TestOverflow(t *testing.T) {
	full := map[string]event.Overflow{
		"namespaces": {Namespaces: 1}, "drops": {Drops: 1}, "syns": {Syns: 1},
		"unnamed": {Unnamed: 1}, "changes": {Changes: 1},
		"uncounted": {Uncounted: 1},
	}
	for name, overflow := range full {
		for _, syns := range []uint64{0, 100} {
			e := quietEvidence(syns)
			e.Overflow = &overflow
			d := Diagnose(e)
			if len(d.Findings) == 0 || d.Findings[0].ID != event.FindingOtherDrops ||
				d.Overflow == nil {
				t.Errorf("%s, %d SYNs: %+v", name, syns, d.Findings)
			}
			for _, f := range d.Findings {
				if f.Confidence == event.ConfidenceProven {
					t.Errorf("%s, %d SYNs: %s is called proven", name, syns,
						f.ID)
				}
			}
			if strings.Contains(d.Verdict, "not the problem") {
				t.Errorf("%s, %d SYNs: %s", name, syns, d.Verdict)
			}
			// What the filter asks for had room: it is judged, and the rest is said.
			e.OverflowAside = true
			d = Diagnose(e)
			want := event.FindingNoSynArrived
			if syns > 0 {
				want = event.FindingHealthy
			}
			if len(d.Findings) != 2 || d.Findings[0].ID != want ||
				d.Findings[1].ID != event.FindingOtherDrops {
				t.Errorf("%s, %d SYNs, none of it asked for: %+v", name, syns,
					d.Findings)
			}
		}
	}
	e := quietEvidence(100)
	e.Overflow = &event.Overflow{Handshakes: 1, Accepts: 1} // which hide nothing
	if d := Diagnose(e); d.Findings[0].ID != event.FindingHealthy {
		t.Errorf("%+v", d.Findings)
	}
}

// quietEvidence is a listener that got so many SYNs and dropped none.
func quietEvidence(syns uint64) *evidence.Evidence {
	balanced := true
	none := uint64(0)
	return &evidence.Evidence{WindowMs: 10000, Filter: "port 443", Ports: []uint16{443},
		Balanced: &balanced, Listeners: []evidence.Listener{{
			ID: event.Listener{Port: 443}, Syns: &syns, Accepts: &syns, Finished: &syns,
			SynAcksAgain: &none, Cookies: &none,
		}}}
}
