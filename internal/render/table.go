// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bufio"
	"bytes"
	"io"

	"github.com/clipperhouse/displaywidth"
)

// Column is a column of a finite table.
type Column struct {
	Title string
	Right bool                     // aligned right, for numbers
	Style func(cell string) string // an ANSI style, or ""; nil for none
}

// Table writes a finite table: no lines, two spaces between columns, nothing
// wrapped. Cells are escaped here.
func Table(w io.Writer, columns []Column, rows [][]string, opts Options) error {
	g := newGrid(columns)
	for _, row := range rows {
		for i := range columns {
			if i < len(row) {
				g.text = append(g.text, row[i]...)
			}
			g.end()
		}
	}
	return g.write(w, opts)
}

// grid is a table before it is written: a column is as wide as its widest cell. A hundred thousand
// rows are kept as their text alone.
type grid struct {
	columns []Column
	widths  []int
	text    []byte
	ends    []uint32 // of each cell in text, row by row, the titles first
}

func newGrid(columns []Column) *grid {
	g := &grid{columns: columns, widths: make([]int, len(columns))}
	for i := range columns {
		g.text = append(g.text, columns[i].Title...)
		g.end()
	}
	return g
}

// begin is where the next cell's text begins in g.text.
func (g *grid) begin() int {
	if len(g.ends) == 0 {
		return 0
	}
	return int(g.ends[len(g.ends)-1])
}

// end ends the cell whose text was appended to g.text.
func (g *grid) end() {
	from, column := g.begin(), len(g.ends)%len(g.columns)
	g.text = escapeFrom(g.text, from)
	g.ends = append(g.ends, uint32(len(g.text)))
	g.widths[column] = max(g.widths[column], displaywidth.Bytes(g.text[from:]))
}

func (g *grid) write(w io.Writer, opts Options) error {
	out := bufio.NewWriterSize(w, streamBuffer)
	var line []byte
	from := 0
	for at := range g.ends {
		end := int(g.ends[at])
		column := at % len(g.columns)
		if column == 0 {
			line = line[:0]
		} else {
			line = append(line, "  "...)
		}
		c, cell := &g.columns[column], g.text[from:end]
		gap := g.widths[column] - displaywidth.Bytes(cell)
		if c.Right {
			line = appendSpaces(line, gap)
		}
		if c.Style != nil && at >= len(g.columns) {
			line = append(line, opts.paint(c.Style(string(cell)), string(cell))...)
		} else {
			line = append(line, cell...)
		}
		if !c.Right {
			line = appendSpaces(line, gap)
		}
		from = end
		if column == len(g.columns)-1 {
			if _, err := out.Write(append(bytes.TrimRight(line, " "),
				'\n')); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

func appendSpaces(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}

// escapeFrom makes what stands in b from there on safe to print, as [Terminal] does.
func escapeFrom(b []byte, from int) []byte {
	for _, c := range b[from:] {
		if c < 0x20 || c > 0x7e {
			return appendTerminal(b[:from], string(b[from:]))
		}
	}
	return b
}
