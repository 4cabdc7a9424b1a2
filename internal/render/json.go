// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

// streamBuffer holds some 100 JSON records: a write is dearer than a record.
const streamBuffer = 64 << 10

// jsonStream writes NDJSON. Drops have an encoder of their own, because they
// come by the ten thousand; all else is encoding/json.
type jsonStream struct {
	w    *bufio.Writer
	line []byte
	time clockCache
}

func newJSONStream(w io.Writer) *jsonStream {
	return &jsonStream{w: bufio.NewWriterSize(w, streamBuffer)}
}

func (s *jsonStream) Ready(r event.Ready) error {
	head(&r.Header, "ready")
	r.Hooks = list(r.Hooks)
	if err := WriteJSON(s.w, r); err != nil {
		return err
	}
	return s.Flush()
}

func (s *jsonStream) Drop(d *event.Drop) error {
	s.line = append(s.appendDrop(s.line[:0], d), '\n')
	_, err := s.w.Write(s.line)
	return err
}

func (s *jsonStream) Suppressed(h event.Suppressed) error {
	head(&h.Header, "suppressed")
	return WriteJSON(s.w, h)
}

func (s *jsonStream) Summary(sum event.Summary) error {
	head(&sum.Header, "summary")
	sum.Counts, sum.Seen, sum.Ledger = list(sum.Counts), list(sum.Seen), list(sum.Ledger)
	if err := WriteJSON(s.w, sum); err != nil {
		return err
	}
	return s.Flush()
}

func (s *jsonStream) Flush() error { return s.w.Flush() }

// head completes a header that was left out.
func head(h *event.Header, kind string) {
	if h.V == 0 {
		h.V = event.SchemaVersion
	}
	if h.Type == "" {
		h.Type = kind
	}
}

// list makes nothing an empty list: a reader of records loops over it.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// WriteJSON writes v as one line. It is encoding/json without its HTML
// escapes, but with escapes for the characters that act on a terminal, which
// JSON allows anywhere in a string.
func WriteJSON(w io.Writer, v any) error {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeHidden(buf.Bytes()))
	return err
}

// escapeHidden escapes what encoding/json leaves as it is. Beyond ASCII, and
// for DEL, such characters are only found inside strings.
func escapeHidden(b []byte) []byte {
	escaped := func(r rune) bool { return r >= 0x7f && (hidden(r) || r == utf8.RuneError) }
	i := bytes.IndexFunc(b, escaped)
	if i < 0 {
		return b
	}
	out := append(make([]byte, 0, len(b)+32), b[:i]...)
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if escaped(r) {
			out = appendEscape(out, r)
		} else {
			out = append(out, b[i:i+n]...)
		}
		i += n
	}
	return out
}

func appendEscape(b []byte, r rune) []byte {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(b, high), low)
	}
	return appendHex(append(b, '\\', 'u'), r, 4)
}
