// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestNotAddedUp: deaths in two network namespaces that have the same addresses are two findings,
// each with its place.
func TestNotAddedUp(t *testing.T) {
	for _, cause := range []event.Cause{event.CauseNetfilter, event.CauseRPFilter,
		event.CauseChecksum, event.CausePolicy} {
		e := ingress(cause, event.ActionDropped, 12, nil)
		here := e.Ingress[0]
		here.Kernel.Reason, here.Count, here.Enter, here.Device = "", 7,
			evidence.Enter{Name: "web"}, "eth0"
		there := here
		there.NetNS, there.Count, there.Enter = here.NetNS+1, 5, evidence.Enter{PID: 812}
		e.Ingress = []evidence.Death{here, there}
		d := Diagnose(e)
		if len(d.Findings) != 2 {
			t.Errorf("%s: %d findings", cause, len(d.Findings))
			continue
		}
		for i, want := range []string{"web", "4026531841 (nsenter -t 812 -n)"} {
			said := ""
			for _, seen := range d.Findings[i].Evidence {
				if text, ok := seen.Value.(string); ok {
					said += seen.What + " " + text + "; "
				}
			}
			if !strings.Contains(said, "network namespace "+want) ||
				!strings.Contains(said, "device eth0") {
				t.Errorf("%s: finding %d says %s", cause, i, said)
			}
		}
	}
}
