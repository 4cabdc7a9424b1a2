// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"log/slog"
	"os"
	"testing"
)

// TestLanguage: this test is a Go program, and what is not watched has no language.
func TestLanguage(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	defer s.Close()
	pid := uint32(os.Getpid())
	if got := s.Language(pid); got != "" {
		t.Errorf("not watched: %q", got)
	}
	if err := s.Watch(pid); err != nil {
		t.Skip(err)
	}
	if got := s.Language(pid); got != "go" {
		t.Errorf("%q", got)
	}
}
