package app

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestReportFile: one that is not written leaves what was there, be it nothing, and one of the records
// that it would be of is refused.
func TestReportFile(t *testing.T) {
	fresh, old := filepath.Join(t.TempDir(), "fresh"), filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(old, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fresh, old} {
		r, err := OpenReport(path)
		if err != nil {
			t.Fatal(err)
		}
		from, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Spare(from); !errors.Is(err, ErrUsage) {
			t.Errorf("%s over itself: %v, want a usage error", path, err)
		}
		if err := errors.Join(from.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a report that was not written: %v", err)
	}
	if text, err := os.ReadFile(old); string(text) != "kept" {
		t.Errorf("the report that was there: %q, %v", text, err)
	}
	r, err := OpenReport(old)
	if err == nil {
		err = errors.Join(r.write(event.Diagnosis{Verdict: "all is well."}), r.Close())
	}
	if text, _ := os.ReadFile(old); err != nil || len(text) < 100 {
		t.Errorf("a report of %d bytes: %v", len(text), err)
	}
	if r, err := OpenReport("/dev/null"); err != nil || r.write(event.Diagnosis{}) != nil || r.Close() != nil {
		t.Errorf("to a device: %v", err)
	}
}
