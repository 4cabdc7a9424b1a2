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
		{Cause: event.CauseAuthFailed, Stage: event.StageSyn, Action: event.ActionDropped, Count: 3}}}
	for netns := range uint64(20) {
		for c := range event.NumCounters {
			sum.Ledger = append(sum.Ledger, event.LedgerRow{NetNS: 4026532000 + netns, Counter: c.String()})
		}
		sum.Ledger = append(sum.Ledger, event.LedgerRow{NetNS: 4026532000 + netns, Counter: "TcpAttemptFails", Kernel: 7, Shared: true})
	}
	sum.Ledger = append(sum.Ledger,
		event.LedgerRow{NetNS: 4026532019, Counter: "TCPMD5NotFound", Kernel: 3, Shared: true},
		event.LedgerRow{NetNS: 4026532019, Counter: "IPReversePathFilter", Kernel: 12345, Synspy: 1234, Filtered: 5, Shared: true},
		event.LedgerRow{NetNS: 4026532019, Counter: "TcpInCsumErrors", Synspy: 1, Shared: true}) // never hidden
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
		"TcpAttemptFails": sharedAtMost, "TCPMD5NotFound": 1, "IPReversePathFilter  12,345   1,234": 1, "TcpInCsumErrors": 1,
		fmt.Sprintf("%d more shared counters moved", 20-sharedAtMost): 1, "none of its 200 counters moved": 1,
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
