package render

import (
	"bytes"
	"fmt"
	"io"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
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
	titles, align := make([]string, len(columns)), make(tw.Alignment, len(columns))
	for i, c := range columns {
		titles[i], align[i] = c.Title, tw.AlignLeft
		if c.Right {
			align[i] = tw.AlignRight
		}
	}
	var out bytes.Buffer
	gap := tw.CellPadding{Global: tw.Padding{Right: "  ", Overwrite: true}}
	cells := func(a tw.Alignment) tw.CellConfig {
		return tw.CellConfig{
			Formatting: tw.CellFormatting{AutoWrap: tw.WrapNone, AutoFormat: tw.Off},
			Alignment:  tw.CellAlignment{PerColumn: a},
			Padding:    gap,
		}
	}
	table := tablewriter.NewTable(&out,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders: tw.BorderNone,
			Symbols: tw.NewSymbols(tw.StyleNone),
			Settings: tw.Settings{
				Separators: tw.SeparatorsNone,
				Lines:      tw.LinesNone,
			},
		})),
		tablewriter.WithConfig(tablewriter.Config{Header: cells(align), Row: cells(align)}),
	)
	table.Header(titles)
	for _, row := range rows {
		cells := make([]string, len(columns))
		for i, c := range columns {
			if i < len(row) {
				cells[i] = Terminal(row[i])
			}
			if c.Style != nil {
				cells[i] = opts.paint(c.Style(cells[i]), cells[i])
			}
		}
		if err := table.Append(cells); err != nil {
			return fmt.Errorf("build table: %w", err)
		}
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("render table: %w", err)
	}
	for line := range bytes.Lines(out.Bytes()) {
		if _, err := w.Write(append(bytes.TrimRight(line, " \n"), '\n')); err != nil {
			return err
		}
	}
	return nil
}
