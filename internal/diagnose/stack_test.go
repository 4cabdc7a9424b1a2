// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/rules"
)

// TestFunction: a frame is named as it is in the source.
func TestFunction(t *testing.T) {
	for frame, want := range map[string]string{
		"db.(*Pool[go.shape.struct { X [2]int }]).Get+0x1f (server)": "db.(*Pool[...]).Get (server)",
		"db.Get[go.shape.int]":       "db.Get[...]",
		"Table::operator[](int)+0x9": "Table::operator[](int)",
		"do_accept+0x1f":             "do_accept",
	} {
		if got := rules.Function(frame); got != want {
			t.Errorf("%s: %q, want %q", frame, got, want)
		}
	}
}

// TestFitting: a stack is cut between frames, and has its innermost one.
func TestFitting(t *testing.T) {
	long := strings.Repeat("f", 70)
	for _, tt := range []struct{ frames, want int }{{0, 0}, {1, 1}, {3, 3}, {5, 3}} {
		frames := make([]string, tt.frames)
		for i := range frames {
			frames[i] = long
		}
		if got := rules.Fitting(frames); len(got) != tt.want {
			t.Errorf("%d of %d frames, want %d", len(got), tt.frames, tt.want)
		}
	}
}
