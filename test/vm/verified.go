// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"
)

// verifierLimit is how many instructions a kernel's verifier walks at most for one program.
const verifierLimit = 1_000_000

// verifiedLine is how the tests of internal/probe tell how many it walked.
var verifiedLine = regexp.MustCompile(`(\w+): (\d+) instructions verified`)

// verified gives the most instructions that a kernel's verifier walked for each program, in
// whatever plan.
func (run kernelRun) verified() map[string]int {
	most := make(map[string]int)
	for _, c := range run.cells {
		for _, said := range verifiedLine.FindAllSubmatch(c.output, -1) {
			if n, err := strconv.Atoi(string(said[2])); err == nil {
				most[string(said[1])] = max(most[string(said[1])], n)
			}
		}
	}
	return most
}

// renderVerified prints these, the largest first, and how far each kernel's largest is from the
// limit.
func renderVerified(w io.Writer, runs []kernelRun) error {
	header := []string{"instructions verified"}
	largest := make(map[string]int)
	var columns []map[string]int
	for _, run := range runs {
		column := run.verified()
		if len(column) == 0 {
			continue
		}
		header, columns = append(header, run.kernel.name), append(columns, column)
		for name, n := range column {
			largest[name] = max(largest[name], n)
		}
	}
	if len(columns) == 0 {
		return nil
	}
	table := tablewriter.NewTable(w, tablewriter.WithHeaderAutoFormat(tw.Off))
	table.Header(header)
	margins := []string{fmt.Sprintf("margin to %d", verifierLimit)}
	for _, column := range columns {
		most := slices.Max(slices.Collect(maps.Values(column)))
		margins = append(margins, fmt.Sprintf("%.0f times", verifierLimit/float64(most)))
	}
	rows := [][]string{margins}
	for _, name := range slices.SortedFunc(maps.Keys(largest), func(a, b string) int {
		return cmp.Or(cmp.Compare(largest[b], largest[a]), cmp.Compare(a, b))
	}) {
		row := []string{name}
		for _, column := range columns {
			text := "-"
			if n, ok := column[name]; ok {
				text = strconv.Itoa(n)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	for _, row := range rows {
		if err := table.Append(row); err != nil {
			return fmt.Errorf("make table: %w", err)
		}
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}
