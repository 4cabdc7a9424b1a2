// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
)

func TestUpdateResults(t *testing.T) {
	k, err := kernelByName("5.10")
	if err != nil {
		t.Fatal(err)
	}
	text := "before\n" + resultsBegin + "\n| 6.1 | old row |\n| 5.10 | old row |\n" + resultsEnd + "\nafter\n"
	run := kernelRun{kernel: k, version: "5.10.1-1", cells: []cell{
		{name: "unit", backend: testColumn},
		{name: "a", backend: "trampoline", verdict: cannot, reason: "too old"},
		{name: "b", backend: "trampoline", verdict: cannot, reason: "too old"},
		{name: "a", backend: "kprobe", verdict: passed},
		{name: "b", backend: "kprobe", verdict: passed},
		{name: "a", backend: "tracepoint"},
		{name: "b", backend: "tracepoint", verdict: passed},
		{name: "c", backend: "tracepoint", verdict: cannot, reason: "no XFRM"},
	}}
	got, err := updateResults(text, []kernelRun{run, {kernel: kernel{name: "6.1"}, cells: run.cells, err: errGuest}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "| 5.10 | 5.10.1-1, amd64 | cannot: too old | 2 of 2 | 1 of 3; failed: a; cannot c: no XFRM |\n"
	if !strings.Contains(got, want) || !strings.Contains(got, "\n| 6.1 | old row |\n") || !strings.Contains(got, "| 6.12 | not run | | | |\n") || !strings.HasPrefix(got, "before\n") || !strings.HasSuffix(got, "\nafter\n") {
		t.Errorf("got\n%s", got)
	}
	if again, err := updateResults(got, nil); err != nil || again != got {
		t.Errorf("nothing ran: got %v\n%s", err, again)
	}
	if _, err := updateResults("no table", nil); err == nil {
		t.Error("no table: got no error")
	}
}

// TestDocs holds docs/kernels.md to the table of kernels: each has its row, and
// what cannot be is there with the reason.
func TestDocs(t *testing.T) {
	path := "../../docs/kernels.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), resultsBegin)
	table, _, _ = strings.Cut(table, resultsEnd)
	rows := resultRows(table)
	for _, k := range kernelTable {
		if rows[k.name] == "" {
			t.Errorf("%s has no row for %s: run the matrix on it with --docs", path, k.name)
		}
		for _, e := range k.cannot {
			if !strings.Contains(rows[k.name], e.reason) {
				t.Errorf("%s: the row of %s does not say %q", path, k.name, e.reason)
			}
		}
	}
}
