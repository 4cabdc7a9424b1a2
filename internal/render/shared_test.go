// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestSharedRows: what only other traffic moved does not hide the rest of the
// ledger, and says nothing about its balance.
func TestSharedRows(t *testing.T) {
	sum := event.Summary{Balanced: true, Counts: []event.Count{
		{Cause: event.CauseAuthFailed, Stage: event.StageSyn, Action: event.ActionDropped,
			Count: 3}}}
	for netns := range uint64(20) {
		for c := range event.NumCounters {
			sum.Ledger = append(sum.Ledger,
				event.LedgerRow{NetNS: 4026532000 + netns, Counter: c.String()})
		}
		sum.Ledger = append(sum.Ledger,
			event.LedgerRow{NetNS: 4026532000 + netns, Counter: "TcpAttemptFails",
				Kernel: 7, Shared: true})
	}
	sum.Ledger = append(sum.Ledger,
		event.LedgerRow{NetNS: 4026532019, Counter: "TCPMD5NotFound", Kernel: 3,
			Shared: true},
		event.LedgerRow{NetNS: 4026532019, Counter: "IPReversePathFilter", Kernel: 12345,
			Synspy: 1234, Filtered: 5, Shared: true},
		event.LedgerRow{NetNS: 4026532019, Counter: "TcpInCsumErrors", Synspy: 1,
			Shared: true}) // never hidden
	var buf bytes.Buffer
	s := NewStream(&buf, Options{Width: 80})
	if err := s.Summary(sum); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	out := buf.String()
	for text, times := range map[string]int{
		"TcpAttemptFails": sharedAtMost, "TCPMD5NotFound": 1,
		"IPReversePathFilter  12,345   1,234": 1, "TcpInCsumErrors": 1,
		fmt.Sprintf("%d more shared counters moved", 20-sharedAtMost): 1,
		"none of its 200 counters moved":                              1,
	} {
		if n := strings.Count(out, text); n != times {
			t.Errorf("%q is there %d times, want %d", text, n, times)
		}
	}
	for line := range strings.Lines(out) {
		if len(line) > 81 {
			t.Errorf("%d characters: %s", len(line)-1, line)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// TestLedgerSentence: what is said below the ledger is what its rows have.
func TestLedgerSentence(t *testing.T) {
	const ns = 4026531840
	row := func(counter string, kernel, synspy, unattributed uint64) event.LedgerRow {
		return event.LedgerRow{NetNS: ns, Counter: counter, Kernel: kernel, Synspy: synspy,
			Unattributed: unattributed}
	}
	still, moved := row("ListenDrops", 0, 0, 0), row("ListenOverflows", 21, 21, 0)
	shared, gone, goneStill := row("TcpAttemptFails", 9, 0, 0), row("ListenDrops", 0, 3, 0),
		row("ListenDrops", 0, 0, 0)
	shared.Shared, gone.Gone, goneStill.Gone = true, true, true
	for _, c := range []struct {
		rows []event.LedgerRow
		want string
	}{
		{nil, "ledger balanced, with nothing to compare"},
		{[]event.LedgerRow{shared}, "ledger balanced, with nothing to compare"},
		{[]event.LedgerRow{still, still},
			"ledger balanced: none of its 2 counters moved\n"},
		{[]event.LedgerRow{still, still, shared},
			"ledger balanced: none of its 2 counters moved, those marked shared left out"},
		{[]event.LedgerRow{still, moved},
			"ledger balanced: the kernel's counters moved by what synspy counted"},
		{[]event.LedgerRow{row("ListenDrops", 21, 20, 1), still},
			"no packet was seen for 1 of the 21 movements of the kernel's counters (4.8 %): UNATTRIBUTED"},
		{[]event.LedgerRow{row("ListenDrops", 9000, 8999, 1)}, "(under 0.1 %)"},
		{[]event.LedgerRow{gone, goneStill},
			"ledger not checked: the network namespaces took their counters along"},
		{[]event.LedgerRow{gone, still}, "ledger balanced: its 1 counter did not move"},
	} {
		sum := event.Summary{Ledger: c.rows}
		sum.Balance()
		var buf bytes.Buffer
		if err := writeSummary(&buf, sum, Options{Width: 200}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(buf.String(), c.want) {
			t.Errorf("%q is missing in\n%s", c.want, buf.String())
		}
	}
}
