// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const oldResults = "before\n" + resultsBegin + `

| 6.1 | old row |
| 5.10 | old row |

- a, b: why (5.10: kprobe; 6.1: trampoline, kprobe)
- c: needs listeners (5.14): see (here) (6.1: all)
- d: why (5.10: all)

` + resultsEnd + "\nafter\n"

const newResults = "before\n" + resultsBegin + `

| kernel | Linux | trampoline | kprobe | tracepoint |
|---|---|---|---|---|
| 5.10 | 5.10.1-1, amd64 | no | 2/2 | 1/4 |
| 5.10-security | not run | | | |
| 6.1 | old row |
| 6.12 | not run | | | |
| 6.16 | not run | | | |
| newest | not run | | | |
| backports | not run | | | |
| 6.12-rt | not run | | | |
| newest-rt | not run | | | |
| 5.10-arm64 | not run | | | |
| 6.12-arm64 | not run | | | |

- a, b: why (6.1: trampoline, kprobe)
- a: failed (5.10: tracepoint)
- c: needs listeners (5.14): see (here) (5.10: tracepoint; 6.1: all)
- d: no XFRM (5.10: tracepoint)
- everything: too old (5.10: trampoline)

` + resultsEnd + "\nafter\n"

func TestUpdateResults(t *testing.T) {
	k, err := kernelByName("5.10")
	if err != nil {
		t.Fatal(err)
	}
	run := kernelRun{kernel: k, version: "5.10.1-1", cells: []cell{
		{name: "unit", backend: testColumn},
		{name: "a", backend: "trampoline", verdict: cannot, reason: "too old"},
		{name: "b", backend: "trampoline", verdict: cannot, reason: "too old"},
		{name: "a", backend: "kprobe", verdict: passed},
		{name: "b", backend: "kprobe", verdict: passed},
		{name: "a", backend: "tracepoint"},
		{name: "b", backend: "tracepoint", verdict: passed},
		{name: "c", backend: "tracepoint", verdict: cannot,
			reason: "needs listeners (5.14): see (here)"},
		{name: "d", backend: "tracepoint", verdict: cannot, reason: "no XFRM"},
	}}
	broken := kernelRun{kernel: kernel{name: "6.1"}, cells: run.cells, err: errGuest}
	got, err := updateResults(oldResults, []kernelRun{run, broken})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(newResults, got); diff != "" {
		t.Error(diff)
	}
	if again, err := updateResults(got, nil); err != nil || again != got {
		t.Errorf("nothing ran: got %v\n%s", err, again)
	}
	if _, err := updateResults("no table", nil); err == nil {
		t.Error("no table: got no error")
	}
}

// TestDocs holds docs/kernels.md to the table of kernels: each has its row, which fits a screen,
// and what cannot be is there with the reason.
func TestDocs(t *testing.T) {
	path := "../../docs/kernels.md"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	if updated, err := updateResults(text, nil); err != nil || updated != text {
		t.Errorf("%s: the results are not as the matrix writes them: %v\n%s", path, err,
			cmp.Diff(updated, text))
	}
	_, results, _ := strings.Cut(text, resultsBegin)
	results, _, _ = strings.Cut(results, resultsEnd)
	rows, notes := resultRows(results), parseNotes(results)
	for _, k := range kernelTable {
		if rows[k.name] == "" {
			t.Errorf("%s has no row for %s: run the matrix on it with --docs", path,
				k.name)
		} else if len(rows[k.name]) > 80 {
			t.Errorf("%s: the row of %s does not fit a screen", path, k.name)
		}
		for _, e := range k.cannot {
			if !slices.ContainsFunc(notes, func(n note) bool {
				return n.kernel == k.name && n.reason == e.reason
			}) {
				t.Errorf("%s: no note on %s says %q", path, k.name, e.reason)
			}
		}
	}
}
