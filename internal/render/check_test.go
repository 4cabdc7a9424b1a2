// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

func TestBlindTable(t *testing.T) {
	blind := []event.Blind{
		{Cause: event.CauseNoMemory, Shows: "kernel_other", Why: "no counter of its own"},
		{Cause: event.CauseChecksum, Stage: event.StageIngress, Part: "of TCP",
			Shows: event.ShowsNothing, Why: "no reasons"},
	}
	var table, records bytes.Buffer
	if err := BlindTable(&table, blind, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, row := range [][]string{{"no_memory", "any", "kernel_other", "no counter"},
		{"checksum", "ingress", "of TCP", "nothing", "no reasons"}} {
		at := strings.Index(table.String(), row[0])
		for _, cell := range row {
			if next := strings.Index(table.String()[max(at, 0):], cell); at < 0 ||
				next < 0 {
				t.Errorf("no row %q in\n%s", row, table.String())
				break
			}
		}
	}
	if err := BlindTable(&records, blind, Options{Format: FormatJSON}); err != nil {
		t.Fatal(err)
	}
	want := `{"v":1,"type":"check","name":"cause","status":"missing","detail":"no counter of its own","cause":"no_memory","shows":"kernel_other"}
{"v":1,"type":"check","name":"cause","status":"missing","detail":"no reasons","cause":"checksum","stage":"ingress","part":"of TCP","shows":"nothing"}
`
	if records.String() != want {
		t.Errorf("got\n%swant\n%s", records.String(), want)
	}
}
