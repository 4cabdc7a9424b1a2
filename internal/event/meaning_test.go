// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strings"
	"testing"
)

// TestMeanings holds the table to the closed list, and its sentences to a form.
func TestMeanings(t *testing.T) {
	list := Meanings()
	for c := range NumCounters {
		if list[c].Name != c.String() || list[c].Shared {
			t.Errorf("row %d is %s, shared %v; the ledger has %v there", c,
				list[c].Name, list[c].Shared, c)
		}
	}
	seen := make(map[string]bool)
	for i, m := range list {
		if seen[m.Name] {
			t.Errorf("%s is there twice", m.Name)
		}
		seen[m.Name] = true
		if m.Shared != (i >= int(NumCounters)) {
			t.Errorf("%s: shared %v", m.Name, m.Shared)
		}
		for _, text := range []string{m.Says, m.Hint} {
			if strings.HasSuffix(text, ".") || strings.TrimSpace(text) != text ||
				len(text) > 130 {
				t.Errorf("%s: %q", m.Name, text)
			}
		}
		if m.Says == "" {
			t.Errorf("%s says nothing", m.Name)
		}
		if got, ok := meaningOf(m.Name); !ok || got != m {
			t.Errorf("%s is not found", m.Name)
		}
	}
	if _, ok := meaningOf("nosuch"); ok {
		t.Error("nosuch is found")
	}
}

// meaningOf finds what is said about a counter, by the name nstat prints.
func meaningOf(name string) (Meaning, bool) {
	for _, m := range meanings {
		if m.Name == name {
			return m, true
		}
	}
	return Meaning{}, false
}
