// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

// TestDropJSON holds the hand-written encoder to encoding/json, byte for byte.
func TestDropJSON(t *testing.T) {
	rounds := uint64(20_000)
	if testing.Short() {
		rounds = 1000
	}
	s := newJSONStream(io.Discard)
	for seed := range rounds {
		d := random[event.Drop](seed)
		head(&d.Header, "drop") // the only thing that the encoder adds
		var want bytes.Buffer
		if err := WriteJSON(&want, d); err != nil {
			t.Fatal(err)
		}
		got := append(s.appendDrop(nil, d), '\n')
		if !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("seed %d:\n got %s\nwant %s", seed, got, want.Bytes())
		}
		checkJSON(t, got)
	}
}

// checkJSON fails unless b is lines of valid JSON and of nothing that acts on
// a terminal.
func checkJSON(t *testing.T, b []byte) {
	t.Helper()
	if !utf8.Valid(b) {
		t.Fatalf("not UTF-8: %q", b)
	}
	for line := range bytes.Lines(b) {
		if !json.Valid(line) {
			t.Fatalf("not JSON: %q", line)
		}
	}
	if i := bytes.IndexFunc(b, func(r rune) bool { return r != '\n' && hidden(r) }); i >= 0 {
		t.Fatalf("hidden character at %d: %q", i, b)
	}
}

// TestJSONKeepsMeaning: the escapes beyond encoding/json's own are only
// another spelling.
func TestJSONKeepsMeaning(t *testing.T) {
	for _, s := range hostile {
		var buf bytes.Buffer
		if err := WriteJSON(&buf, s); err != nil {
			t.Fatal(err)
		}
		if got := appendString(nil, s); string(got) != strings.TrimSuffix(buf.String(),
			"\n") {
			t.Errorf("%q: appendString %s, WriteJSON %s", s, got, buf.Bytes())
		}
		var got string
		if err := json.Unmarshal(buf.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); got != want && utf8.ValidString(s) {
			t.Errorf("%q came back as %q", s, got)
		}
		checkJSON(t, buf.Bytes())
	}
}

func TestRandomRecordsAreJSON(t *testing.T) {
	for seed := range uint64(500) {
		var buf bytes.Buffer
		s := NewStream(&buf, Options{Format: FormatJSON})
		ready, held, sum := random[event.Ready](seed), random[event.Suppressed](seed),
			random[event.Summary](seed)
		for _, err := range []error{s.Ready(*ready), s.Suppressed(*held),
			s.Drop(random[event.Drop](seed)), s.Summary(*sum), s.Flush()} {
			if err != nil {
				t.Fatal(err)
			}
		}
		checkJSON(t, buf.Bytes())
		if n := bytes.Count(buf.Bytes(), []byte("\n")); n != 4 {
			t.Fatalf("%d lines", n)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for i, s := range hostile {
		f.Add(s, uint64(i))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		d := random[event.Drop](seed)
		d.ClientSees = s
		d.Processes = append(d.Processes,
			event.Process{Comm: s, Cgroup: &event.Cgroup{Path: s}})
		head(&d.Header, "drop")
		got := append(newJSONStream(nil).appendDrop(nil, d), '\n')
		var want bytes.Buffer
		if err := WriteJSON(&want, d); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("\n got %s\nwant %s", got, want.Bytes())
		}
		checkJSON(t, got)
	})
}

// TestStreamErrors: a closed pipe must reach the caller, who ends silently.
func TestStreamErrors(t *testing.T) {
	for _, format := range []Format{FormatJSON, FormatTable} {
		r, w := io.Pipe()
		_ = r.Close()
		s := NewStream(w, Options{Format: format})
		var err error
		for i := 0; i < 1000 && err == nil; i++ {
			err = s.Drop(typical())
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("format %d: %v", format, err)
		}
		if err := s.Summary(event.Summary{}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("format %d: summary: %v", format, err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	d := typical()
	for _, format := range []Format{FormatJSON, FormatTable, FormatWide} {
		s := NewStream(io.Discard, Options{Format: format})
		_ = s.Drop(d)
		if n := testing.AllocsPerRun(200, func() { _ = s.Drop(d) }); n > 0 {
			t.Errorf("format %d: %v allocations", format, n)
		}
	}
}

func BenchmarkDropJSON(b *testing.B) {
	d := typical()
	b.Run("by hand", func(b *testing.B) { benchmarkStream(b, Options{Format: FormatJSON}, d) })
	b.Run("encoding/json", func(b *testing.B) {
		e := json.NewEncoder(io.Discard)
		e.SetEscapeHTML(false)
		b.ReportAllocs()
		for b.Loop() {
			if err := e.Encode(d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDropTable(b *testing.B) {
	b.Run("table", func(b *testing.B) { benchmarkStream(b, Options{}, typical()) })
	b.Run("narrow", func(b *testing.B) { benchmarkStream(b, Options{Width: 80}, typical()) })
	b.Run("wide", func(b *testing.B) {
		benchmarkStream(b, Options{Format: FormatWide}, typical())
	})
	b.Run("color", func(b *testing.B) { benchmarkStream(b, Options{Color: true}, typical()) })
}

func benchmarkStream(b *testing.B, opts Options, d *event.Drop) {
	s := NewStream(io.Discard, opts)
	b.ReportAllocs()
	for b.Loop() {
		d.Time.Time = d.Time.Add(1234567)
		if err := s.Drop(d); err != nil {
			b.Fatal(err)
		}
	}
}
