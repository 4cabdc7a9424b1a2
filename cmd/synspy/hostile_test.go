// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestHostileComm shows a process whose name clears a terminal, breaks lines,
// and is no UTF-8.
func TestHostileComm(t *testing.T) {
	for _, format := range []string{"table", "wide", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := output(t,
				exec.Command(program, "lab", "run", "two-ports", "-o", format))
			if code != 0 {
				t.Fatalf("exit code %d, standard error:\n%s", code, stderr)
			}
			harmless(t, stdout)
			harmless(t, stderr)
			if format != "json" {
				if !strings.Contains(stdout, `ev\x1b[2J\x0a"<b>`) {
					t.Errorf("the name is not there, escaped:\n%s", stdout)
				}
				return
			}
			records := decode(t, stdout)
			if n := ofType(records, "drop"); n != 8 {
				t.Errorf("%d drop records, want 8", n)
			}
			const comm = "ev\x1b[2J\n\"<b>\ufffd\ufffd" // as JSON can have it
			for _, r := range records {
				if r.Type == "drop" &&
					(len(r.Processes) != 1 || r.Processes[0].Comm != comm) {
					t.Errorf("processes %q, want one called %q", r.Processes,
						comm)
				}
			}
		})
	}
}

// harmless fails on what a terminal would obey and on what is no text.
func harmless(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("no valid UTF-8: %q", text)
	}
	for line := range strings.Lines(text) {
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"),
			unicode.IsControl); i >= 0 {
			t.Errorf("control character %#x in %q", line[i], line)
		}
	}
}
