// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
)

// line builds one row. It counts characters, not bytes, and not its own
// styles.
type line struct {
	buf   []byte
	color bool
	limit int // characters

	col   int // where the line is
	want  int // where the next cell should begin
	from  int // where the cell's text begins in buf
	paint string
}

func (l *line) reset() { l.buf, l.col, l.want = l.buf[:0], 0, 0 }

// begin moves to the next cell; its text is then appended to buf.
func (l *line) begin() {
	gap := l.want - l.col
	if l.col > 0 {
		gap = max(gap, 1)
	}
	l.pad(gap)
	l.from, l.paint = len(l.buf), styleNone
}

func (l *line) pad(n int) {
	const spaces = "                                "
	for n = min(n, l.limit-l.col); n > 0; {
		k := min(n, len(spaces))
		l.buf = append(l.buf, spaces[:k]...)
		l.col += k
		n -= k
	}
}

// style paints the cell that was begun.
func (l *line) style(s string) {
	if l.color && s != styleNone {
		l.paint = s
		l.buf = append(l.buf, s...)
		l.from = len(l.buf)
	}
}

// end shortens and aligns the cell.
func (l *line) end(c *column) {
	buf, n := elide(l.buf, l.from, min(c.most, l.limit-l.col), c.middle)
	l.buf = buf
	c.width = max(c.width, min(n, c.grow))
	// Where the line is late already, a number's own padding makes up for it.
	if gap := min(c.width-n, l.want+c.width-n-l.col, l.limit-l.col-n); c.right && gap > 0 {
		l.insert(gap)
		n += gap
	}
	if l.paint != styleNone {
		l.buf = append(l.buf, styleReset...)
	}
	l.col += n
	l.want += c.width + 1
}

// insert puts spaces before the cell's text.
func (l *line) insert(n int) {
	for range n {
		l.buf = append(l.buf, ' ')
	}
	copy(l.buf[l.from+n:], l.buf[l.from:len(l.buf)-n])
	for i := range n {
		l.buf[l.from+i] = ' '
	}
}

// finish returns the line, which is valid until the next reset.
func (l *line) finish() []byte {
	l.buf = append(bytes.TrimRight(l.buf, " "), '\n')
	return l.buf
}
