// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// Diagnose judges the evidence. It does not change it, and the same evidence gives the same
// diagnosis.
func Diagnose(e *evidence.Evidence) event.Diagnosis {
	all := rules.Judge(e)
	d := event.Diagnosis{
		Header: event.Head("diagnosis"), Time: e.Start, WindowS: float64(e.WindowMs) / 1000,
		Verdict: rules.Doubt(e, all, verdict(e, all)), Findings: []event.Finding{},
		Counts: e.Counts, Ledger: e.Ledger, Overflow: e.Overflow, Balanced: e.Balanced,
		Unchecked: event.Unchecked(e.Counts), Timeline: []event.Timeline{},
		Handshakes: evidence.Handshakes(e), Clients: evidence.Bound(e.Clients,
			rules.MaxClients), ClientsSeen: e.ClientsSeen, Cannot: rules.Cannot(e, all),
	}
	if d.Ledger == nil {
		d.Ledger = []event.LedgerRow{}
	}
	for _, f := range all {
		d.Findings = append(d.Findings, f.Finding)
	}
	d.Listeners, d.Timeline, d.Unlisted = views(e)
	d.GroupSyns, d.Unsure = e.GroupSyns, e.Unsure
	return d
}
