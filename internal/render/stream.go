// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bufio"
	"io"
	"strconv"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// tableStream writes one line a drop. The columns are made by hand: a row must
// appear when it happens, whatever comes after it, and cost about a
// microsecond.
type tableStream struct {
	w       *bufio.Writer
	opts    Options
	columns []column
	line    line
}

func newTableStream(w io.Writer, opts Options) *tableStream {
	s := &tableStream{w: bufio.NewWriterSize(w, streamBuffer), opts: opts}
	s.line.color = opts.Color
	return s
}

// Ready writes nothing: [StatusLine] is for standard error. Times that are
// relative count from then.
func (s *tableStream) Ready(r event.Ready) error {
	if !r.Time.IsZero() {
		s.opts.Start = r.Time.Time
	}
	s.opts.Narrowed = narrowing(r.Filters)
	if r.Rate > 0 {
		s.opts.Rate = int(r.Rate)
	}
	return nil
}

func (s *tableStream) Drop(d *event.Drop) error {
	if d.Action == event.ActionIgnored {
		return nil // the summary counts it
	}
	if s.opts.Start.IsZero() {
		s.opts.Start = d.Time.Time
	}
	if s.columns == nil {
		s.columns, s.line.limit = layout(s.opts)
		s.fit(d)
		s.header()
	}
	s.line.reset()
	for i := range s.columns {
		c := &s.columns[i]
		s.line.begin()
		s.line.style(c.style(d))
		s.line.buf = c.cell(s.line.buf, s.opts, d)
		s.line.end(c)
	}
	_, err := s.w.Write(s.line.finish())
	return err
}

// fit widens the columns for the first row, so that the header stands above
// what it names.
func (s *tableStream) fit(d *event.Drop) {
	for i := range s.columns {
		c := &s.columns[i]
		cell := c.cell(nil, s.opts, d)
		_, n := elide(cell, 0, c.most, c.middle)
		c.width = max(c.width, min(n, c.grow))
	}
}

func (s *tableStream) header() {
	s.line.reset()
	for i := range s.columns {
		c := &s.columns[i]
		s.line.begin()
		s.line.buf = append(s.line.buf, c.title...)
		s.line.end(c)
	}
	_, _ = s.w.Write(s.line.finish()) // the row's write returns the same error
}

// Held writes one dim line, not a row.
func (s *tableStream) Suppressed(h event.Suppressed) error {
	b := append(s.line.buf[:0], "… "...)
	b = s.opts.appendCount(b, h.Count)
	b = append(b, " more"...)
	if h.Cause != event.CauseUnknown {
		b = append(append(b, ' '), h.Cause.String()...)
	}
	switch {
	case h.Listener != nil:
		b = append(b, " on "...)
		b = appendEndpoint(b, h.Listener.Addr, h.Listener.Port)
	case h.Others:
		b = append(b, " on other listeners"...)
	}
	switch {
	case h.Type == "lost":
		b = append(b, " lost: the ring buffer was full, see --ring-size"...)
	case h.Limit == event.LimitCount:
		b = append(b, " came after --count was reached"...)
	case s.opts.Rate > 0:
		b = append(b, " held back by --rate "...)
		b = strconv.AppendInt(b, int64(s.opts.Rate), 10)
	default:
		b = append(b, " held back by --rate"...)
	}
	s.line.buf = b
	_, err := s.w.WriteString(s.opts.paint(styleDim, string(b)) + "\n")
	return err
}

func (s *tableStream) Summary(sum event.Summary) error {
	if s.columns != nil {
		if err := s.w.WriteByte('\n'); err != nil {
			return err
		}
	}
	if err := writeSummary(s.w, sum, s.opts); err != nil {
		return err
	}
	return s.Flush()
}

func (s *tableStream) Flush() error { return s.w.Flush() }

// appendTime writes a table's time.
func appendTime(b []byte, t time.Time, opts Options, layout string) []byte {
	switch opts.Time {
	case ClockRelative:
		d := t.Sub(opts.Start)
		sign := byte('+')
		if d < 0 {
			sign, d = '-', -d
		}
		b = strconv.AppendInt(append(b, sign), int64(d/time.Second), 10)
		ms := int(d/time.Millisecond) % 1000
		return append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	case ClockUTC:
		t = t.UTC()
	default:
		t = t.Local()
	}
	return t.AppendFormat(b, layout)
}
