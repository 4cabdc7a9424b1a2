// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// plainEnv is a world without a terminal and without variables.
func plainEnv(stdout, stderr io.Writer) env {
	return env{stdout: stdout, stderr: stderr, getenv: func(string) string {
		return ""
	}, terminal: noTerminal}
}

// TestColor colours on a terminal only, and not against the reader's will.
func TestColor(t *testing.T) {
	for _, test := range []struct {
		name     string
		args     []string
		noColor  string
		terminal bool
		want     bool
	}{
		{"terminal", nil, "", true, true},
		{"no terminal", nil, "", false, false},
		{"NO_COLOR", nil, "1", true, false},
		{"NO_COLOR=0", nil, "0", true, false}, // any value, says no-color.org
		{"--no-color", []string{"--no-color"}, "", true, false},
		{"JSON", []string{"-o", "json"}, "", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			e := plainEnv(&stdout, &stderr)
			e.getenv = func(name string) string {
				if name == "NO_COLOR" {
					return test.noColor
				}
				return ""
			}
			e.terminal = func() (int, bool) { return 80, test.terminal }
			if code := run(t.Context(), append([]string{"check"}, test.args...),
				e); code != 0 {
				t.Fatalf("exit code %d, standard error:\n%s", code, stderr.String())
			}
			if got := strings.Contains(stdout.String(), "\x1b["); got != test.want {
				t.Errorf("coloured: %v, want %v:\n%q", got, test.want,
					stdout.String())
			}
		})
	}
}
