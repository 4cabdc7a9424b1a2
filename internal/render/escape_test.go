// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

func TestTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":              "nginx",
		"\x1b[31m":           `\x1b[31m`,
		"a\nb\t\x00":         `a\x0ab\x09\x00`,
		"\x7f":               `\x7f`,
		"\xc2\x9b2J":         `\u009b2J`,
		"\x9b2J":             `\x9b2J`,
		"\xed\xa0\x80":       `\xed\xa0\x80`,
		"\u202egpj":          `\u202egpj`,
		"\u2066\u2069":       `\u2066\u2069`,
		"a\u200bb\u200f":     `a\u200bb\u200f`,
		"\u2028\u2029":       `\u2028\u2029`,
		"\ufeff\u00ad":       `\ufeff\u00ad`,
		"\U000e0041":         `\U000e0041`,
		"日本語 é \ufffd":       "日本語 é \ufffd",
		`\x1b`:               `\x1b`,
		"\u061c\u180e":       `\u061c\u180e`,
		"\u0300combining":    "\u0300combining",
		"kworker/0:1-mm\xff": `kworker/0:1-mm\xff`,
	} {
		if got := Terminal(in); got != want {
			t.Errorf("Terminal(%q) = %s, want %s", in, got, want)
		}
	}
}

// safe fails where table output could act on a terminal.
func safe(t *testing.T, out []byte) {
	t.Helper()
	if !utf8.Valid(out) {
		t.Fatalf("not UTF-8: %q", out)
	}
	if i := bytes.IndexFunc(out, func(r rune) bool { return r != '\n' && hidden(r) }); i >= 0 {
		t.Fatalf("hidden character at %d: %q", i, out)
	}
}

// tables writes records in every table there is and returns the number of
// lines that belong there.
func tables(t *testing.T, w *bytes.Buffer, opts Options, d *event.Drop, h event.Suppressed,
	sum event.Summary) {
	t.Helper()
	s := NewStream(w, opts)
	for _, err := range []error{s.Drop(d), s.Suppressed(h), s.Summary(sum), s.Flush()} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzTable(f *testing.F) {
	for i, s := range hostile {
		f.Add(s, uint64(i), 80)
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64, width int) {
		d := random[event.Drop](seed)
		d.Processes = append([]event.Process{{Comm: s, Role: event.Role(s)}},
			d.Processes...)
		d.Pod = &event.Pod{Namespace: s, Name: s}
		d.Cgroup = &event.Cgroup{Path: s}
		d.Kernel.Reason = s
		sum := *random[event.Summary](seed)
		sum.Ledger = append(sum.Ledger, event.LedgerRow{Counter: s, Kernel: 1})
		for _, format := range []Format{FormatTable, FormatWide} {
			var buf bytes.Buffer
			tables(t, &buf,
				Options{Format: format, Width: width,
					Time: Clock(seed % 3)}, d, *random[event.Suppressed](seed), sum)
			safe(t, buf.Bytes())
			if d.Action != event.ActionIgnored {
				// The header, the row, and the line of what was held: no text
				// from outside has made another.
				if lines := strings.SplitN(buf.String(), "\n", 4); len(lines) < 4 ||
					!strings.HasPrefix(lines[2], "…") {
					t.Fatalf("forged a line: %q", buf.String())
				}
			}
		}
		var buf bytes.Buffer
		if err := CheckTable(&buf,
			[]CheckRow{{Name: s, Status: CheckStatus(s), Detail: s,
				Remedy: s}}, Options{}); err != nil {
			t.Fatal(err)
		}
		if err := HookTable(&buf, []event.Hook{{Name: s, Backend: s, Note: s}},
			Options{}); err != nil {
			t.Fatal(err)
		}
		safe(t, buf.Bytes())
		safe(t, []byte(StatusLine(event.Ready{Kernel: s, Backend: s,
			Hooks: []event.Hook{{Name: s, Note: s}}})))
		safe(t, []byte(Terminal(s)))
	})
}
