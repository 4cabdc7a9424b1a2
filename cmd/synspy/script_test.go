// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script in process. To rewrite the goldens there, set
// UPDATE_GOLDENS.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_GOLDENS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool,
			[]string){"exits": exits},
	})
}

// exits CODE ARG... runs synspy and wants that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exits CODE ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for i, arg := range args {
		args[i] = unescape(arg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience) // a trace that should not have begun
	defer cancel()
	got := run(ctx, args[1:], env{stdout: ts.Stdout(), stderr: ts.Stderr(), getenv: ts.Getenv,
		terminal: noTerminal})
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// unescape reads Go's escapes: a script is text.
func unescape(arg string) string {
	if text, err := strconv.Unquote(fmt.Sprintf(`"%s"`, arg)); err == nil {
		return text
	}
	return arg
}

func noTerminal() (int, bool) { return 0, false }
