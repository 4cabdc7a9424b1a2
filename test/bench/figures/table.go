// SPDX-License-Identifier: Apache-2.0

package figures

import (
	"fmt"
	"io"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"
)

func NewTable(w io.Writer, header []string) *tablewriter.Table {
	table := tablewriter.NewTable(w, tablewriter.WithHeaderAutoFormat(tw.Off))
	table.Header(header)
	return table
}

func PrintTable(w io.Writer, title string, header []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w, title+":")
	table := NewTable(w, header)
	for _, row := range rows {
		if err := table.Append(row); err != nil {
			return fmt.Errorf("make table: %w", err)
		}
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	fmt.Fprintln(w)
	return nil
}
