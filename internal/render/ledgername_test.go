// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestLedgerNamesNamespaces: a namespace that has a name is told by it, and one that has none by
// its number.
func TestLedgerNamesNamespaces(t *testing.T) {
	var out bytes.Buffer
	s := event.Summary{Balanced: true, Ledger: []event.LedgerRow{
		{NetNS: 4026532001, Name: "web\x1b[2J", Counter: "ListenDrops", Kernel: 4,
			Synspy: 4},
		{NetNS: 4026532002, Counter: "ListenDrops", Kernel: 5, Synspy: 5},
	}}
	if err := writeSummary(&out, s, Options{}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if !strings.Contains(text, "\nweb") || strings.Contains(text, "4026532001") ||
		!strings.Contains(text, "\n4026532002") || strings.Contains(text, "\x1b") {
		t.Error(text)
	}
}
