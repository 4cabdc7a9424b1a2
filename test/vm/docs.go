// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// The results in docs/kernels.md lie between these lines. A run of the matrix
// replaces the rows of the kernels it ran on, and leaves the others.
const (
	resultsBegin = "<!-- results: written by make test-vm VM_FLAGS='--docs docs/kernels.md' -->"
	resultsEnd   = "<!-- end of results -->"
)

// writeResults brings a document's table of results up to date.
func writeResults(path string, runs []kernelRun) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	updated, err := updateResults(string(text), runs)
	if err != nil {
		return fmt.Errorf("write results to %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(updated), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// updateResults gives the document with new rows, in the order of the table of
// kernels. A kernel on which not everything ran keeps the row it had.
func updateResults(text string, runs []kernelRun) (string, error) {
	before, rest, found := strings.Cut(text, resultsBegin+"\n")
	old, after, closed := strings.Cut(rest, resultsEnd)
	if !found || !closed {
		return "", errors.New("no table of results in it")
	}
	rows := resultRows(old)
	for _, run := range runs {
		if run.err == nil && len(run.cells) > 0 {
			rows[run.kernel.name] = run.resultRow()
		}
	}
	var table strings.Builder
	table.WriteString("\n| kernel | Linux | " + strings.Join(allBackends, " | ") + " |\n|---|---|" + strings.Repeat("---|", len(allBackends)) + "\n")
	for _, k := range kernelTable {
		row := rows[k.name]
		if row == "" {
			row = "| " + k.name + " | not run |" + strings.Repeat(" |", len(allBackends))
		}
		table.WriteString(row + "\n")
	}
	return before + resultsBegin + "\n" + table.String() + "\n" + resultsEnd + after, nil
}

// resultRows finds the rows of a table of results by their kernels' names.
func resultRows(text string) map[string]string {
	rows := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, _, _ := strings.Cut(strings.Trim(line, "| "), " ")
		if slices.ContainsFunc(kernelTable, func(k kernel) bool { return k.name == name }) {
			rows[name] = line
		}
	}
	return rows
}

// resultRow counts scenarios by backend.
func (run kernelRun) resultRow() string {
	columns := []string{run.kernel.name, run.version + ", " + run.kernel.arch}
	for _, backend := range allBackends {
		columns = append(columns, run.result(backend))
	}
	return "| " + strings.Join(columns, " | ") + " |"
}

// result says how a backend's scenarios went: "15 of 15", what failed, and why
// others cannot be.
func (run kernelRun) result(backend string) string {
	var total, good int
	var bad []string
	why := map[string][]string{} // reason: scenarios
	var order []string
	for _, c := range run.cells {
		if c.backend != backend {
			continue
		}
		total++
		switch c.verdict {
		case passed:
			good++
		case failed:
			bad = append(bad, c.name)
		case cannot:
			if why[c.reason] == nil {
				order = append(order, c.reason)
			}
			why[c.reason] = append(why[c.reason], c.name)
		}
	}
	if len(order) == 1 && len(why[order[0]]) == total {
		return "cannot: " + order[0]
	}
	text := fmt.Sprintf("%d of %d", good, total)
	if len(bad) > 0 {
		text += "; failed: " + strings.Join(bad, ", ")
	}
	for _, reason := range order {
		text += "; cannot " + strings.Join(why[reason], ", ") + ": " + reason
	}
	return text
}
