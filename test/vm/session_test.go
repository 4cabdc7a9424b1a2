// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestSessionOutput(t *testing.T) {
	const marker = "\n@@n exit 3 1.50 2.75\n"
	for _, test := range []struct{ name, stream, want string }{
		{"nothing", marker, ""},
		{"line", "hello\n" + marker, "hello\n"},
		{"no newline at the end", "hello" + marker, "hello"},
		{"empty lines stay", "\n\n" + marker, "\n\n"},
		{"almost a marker", "\n@@m exit 0 0 0\n\n@@n" + marker, "\n@@m exit 0 0 0\n\n@@n"},
		{"binary", "\x00\xff\n@" + marker, "\x00\xff\n@"},
	} {
		// Whole, and one byte at a time: the split must not depend on it.
		for how, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader} {
			t.Run(test.name+" "+how, func(t *testing.T) {
				s := &session{out: wrap(strings.NewReader(test.stream)),
					split: newMarkerSplitter("n")}
				var got bytes.Buffer
				r, err := s.await(&got)
				if err != nil {
					t.Fatal(err)
				}
				if want := (result{status: 3, took: 1250 * time.Millisecond,
					uptime: 2750 * time.Millisecond}); r != want {
					t.Errorf("got %+v, want %+v", r, want)
				}
				if got.String() != test.want {
					t.Errorf("got %q, want %q", &got, test.want)
				}
			})
		}
	}
}

func TestSessionEndsEarly(t *testing.T) {
	s := &session{out: strings.NewReader("last words\n@@n ex"), split: newMarkerSplitter("n")}
	var got bytes.Buffer
	if _, err := s.await(&got); !errors.Is(err, errGuest) {
		t.Errorf("got error %v, want %v", err, errGuest)
	}
	if want := "last words\n@@n ex"; got.String() != want {
		t.Errorf("got %q, want %q", &got, want)
	}
}

func TestParseMarkerRefuses(t *testing.T) {
	for _, marker := range []string{"", "exit", "exit x 1 2", "exit 0 1", "exit 0 a 2",
		"begin 0 1 2", "exit 0 1 2 3"} {
		if _, err := parseMarker(marker); err == nil {
			t.Errorf("%q: got no error", marker)
		}
	}
}

func TestShellCommand(t *testing.T) {
	args := []string{"a b", "it's", "$HOME", "new\nline", "", "*"}
	out, err := exec.Command("sh", "-c",
		shellCommand(append([]string{"printf", "%s|"}, args...))).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(args, "|") + "|"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestExplain(t *testing.T) {
	const log = "[1.0] ok\n[2.0] Kernel panic - not syncing: Fatal exception\n[2.1] more\n"
	if err := explain(context.Background(), errGuest, log); !errors.Is(err, errGuest) ||
		!strings.HasSuffix(err.Error(), "kernel panic: Fatal exception") {
		t.Errorf("panic: got %v", err)
	}
	if err := explain(context.Background(), errGuest,
		"Oops: int3: 0000 [#1] SMP\n"+log); !errors.Is(err, errEmulator) {
		t.Errorf("a stray breakpoint is %v, want %v", err, errEmulator)
	}
	if err := explain(context.Background(), errGuest, log); errors.Is(err, errEmulator) {
		t.Errorf("a panic is %v", err)
	}
	if err := explain(context.Background(), errGuest, "[1.0] ok\n"); !errors.Is(err, errGuest) {
		t.Errorf("no panic: got %v", err)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), 0, errTimeout)
	defer cancel()
	if err := explain(ctx, errGuest, ""); !errors.Is(err, errTimeout) {
		t.Errorf("timeout: got %v", err)
	}
}
