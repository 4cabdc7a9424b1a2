// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestStdoutClosed: what nobody can see is not said, and not taken for done.
func TestStdoutClosed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script string
		code   int
	}{
		{`"$0" version >&-`, 1},
		{`"$0" lab list >&- 2>/dev/null`, 1},
		{`"$0" version >/dev/null`, 0},
		{`"$0" version 1<>/dev/null 2>&1`, 0}, // as a daemon has it
		{`"$0" version 1<>/dev/null <&1`, 0},
	} {
		cmd := exec.Command("sh", "-c", tt.script, program)
		_, stderr, code := output(t, cmd)
		if code != tt.code {
			t.Errorf("%s: exit code %d, want %d", tt.script, code, tt.code)
		}
		if want := tt.code == 1 &&
			!strings.Contains(tt.script, "2>"); want != strings.Contains(stderr,
			"standard output is closed") {
			t.Errorf("%s: standard error: %q", tt.script, stderr)
		}
	}
	// A daemon's own, of which its children get a copy.
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	daemon := exec.Command("sh", "-c", `"$0" version; exit $?`, program)
	daemon.Stdout, daemon.Stderr = null, &bytes.Buffer{}
	if err := daemon.Run(); err != nil {
		t.Errorf("below a daemon: %v: %s", err, daemon.Stderr)
	}
}

// TestHangup: a run that was started to outlive its terminal does.
func TestHangup(t *testing.T) {
	t.Parallel()
	p := &process{Cmd: exec.Command("sh", "-c", `trap "" HUP; exec "$0" trace --port 1 --duration 700ms -o json`, program), t: t}
	p.begin()
	p.line() // ready
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	rest, code := p.exit()
	if records := decode(t, rest); code != 0 || len(records) == 0 || records[len(records)-1].Type != "summary" || !regexp.MustCompile(`"duration_ms":([7-9]\d\d|\d{4,}),`).MatchString(rest) {
		t.Errorf("exit code %d, output:\n%s", code, rest)
	}
}
