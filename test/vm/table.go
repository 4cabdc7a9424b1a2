// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"
)

// failureOutput bounds what is printed of one failing cell, from its end.
const failureOutput = 64 << 10

// renderMatrix prints the table: a row for each kernel and thing that ran on it, a
// column for each backend. What cannot be carries the number of its reason, and
// the reasons follow.
func renderMatrix(w io.Writer, runs []kernelRun) error {
	header, rows := matrixRows(runs)
	table := tablewriter.NewTable(w, tablewriter.WithHeaderAutoFormat(tw.Off))
	table.Header(header)
	for _, row := range rows {
		if err := table.Append(row); err != nil {
			return fmt.Errorf("make table: %w", err)
		}
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	for i, reason := range reasons(runs) {
		fmt.Fprintf(w, "[%d] %s\n", i+1, reason)
	}
	for _, run := range runs {
		fmt.Fprintf(w, "%s: Linux %s, %.0f s\n", run.kernel.name,
			cmp.Or(run.version, "unknown"), run.took.Seconds())
	}
	return nil
}

// matrixRows lays the cells out. Columns that no kernel filled are left out; a
// square that was not run shows a dash.
func matrixRows(runs []kernelRun) (header []string, rows [][]string) {
	used := map[string]bool{}
	for _, run := range runs {
		for _, c := range run.cells {
			used[c.backend] = true
		}
	}
	header = []string{"kernel", "scenario"}
	column := map[string]int{}
	for _, backend := range append([]string{testColumn}, allBackends...) {
		if used[backend] {
			column[backend] = len(header)
			header = append(header, backend)
		}
	}
	noted := reasons(runs)
	for _, run := range runs {
		row := map[string][]string{}
		for _, c := range run.cells {
			if row[c.name] == nil {
				fresh := []string{c.kernel, c.name}
				for range len(header) - len(fresh) {
					fresh = append(fresh, "-")
				}
				row[c.name] = fresh
				rows = append(rows, fresh)
			}
			row[c.name][column[c.backend]] = c.text(noted)
		}
		if run.err != nil || len(run.cells) == 0 {
			rows = append(rows, append([]string{run.kernel.name, "(kernel) FAIL"},
				make([]string, len(header)-2)...))
		}
	}
	return header, rows
}

// reasons lists why squares cannot be, each reason once.
func reasons(runs []kernelRun) []string {
	var all []string
	for _, run := range runs {
		for _, c := range run.cells {
			if c.verdict == cannot && !slices.Contains(all, c.reason) {
				all = append(all, c.reason)
			}
		}
	}
	return all
}

func (c cell) text(reasons []string) string {
	if c.verdict == cannot {
		return fmt.Sprintf("%s [%d]", c.verdict, slices.Index(reasons, c.reason)+1)
	}
	text := fmt.Sprintf("%s %.2fs", c.verdict, c.took.Seconds())
	if c.skipped > 0 { // or a kernel that lets nothing run would look well tested
		text += fmt.Sprintf(", %d skipped", c.skipped)
	}
	return text
}

// printFailures prints the output of every cell that failed and the error of every
// kernel that did, and counts them.
func printFailures(w io.Writer, runs []kernelRun) int {
	failures := 0
	for _, run := range runs {
		for _, c := range run.cells {
			if c.verdict != failed {
				continue
			}
			failures++
			output := c.output
			if cut := len(output) - failureOutput; cut > 0 {
				output = append([]byte("[beginning left out]\n"), output[cut:]...)
			}
			fmt.Fprintf(w, "\n--- FAIL %s %s %s\n%s\n", c.kernel, c.name, c.backend,
				bytes.TrimSpace(output))
		}
		if run.err == nil && len(run.cells) == 0 {
			run.err = errors.New("nothing ran")
		}
		if run.err == nil {
			continue
		}
		failures++
		fmt.Fprintf(w, "\n--- FAIL kernel %s: %v\n", run.kernel.name, run.err)
		var failure *guestFailure
		if errors.As(run.err, &failure) {
			fmt.Fprintf(w, "the console's last lines (all of them are in %s):\n%s\n",
				failure.log, strings.TrimSpace(failure.console))
		}
		var hint *hintError
		if errors.As(run.err, &hint) {
			fmt.Fprintf(w, "hint: %s\n", hint.hint)
		}
	}
	return failures
}
