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
// replaces what is said of the kernels it ran on, and leaves the others.
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
// kernels. A kernel on which not everything ran keeps the row and the notes it had.
func updateResults(text string, runs []kernelRun) (string, error) {
	before, rest, found := strings.Cut(text, resultsBegin+"\n")
	old, after, closed := strings.Cut(rest, resultsEnd)
	if !found || !closed {
		return "", errors.New("no table of results in it")
	}
	rows, notes := resultRows(old), parseNotes(old)
	for _, run := range runs {
		if run.err != nil || len(run.cells) == 0 {
			continue
		}
		name := run.kernel.name
		rows[name] = run.resultRow()
		notes = slices.DeleteFunc(notes, func(n note) bool { return n.kernel == name })
		notes = append(notes, run.notes()...)
	}
	var kernels []string
	for _, k := range kernelTable {
		kernels = append(kernels, k.name)
	}
	results := resultTable(rows) + formatNotes(notes, kernels)
	return before + resultsBegin + "\n" + results + "\n" + resultsEnd + after, nil
}

func resultTable(rows map[string]string) string {
	var table strings.Builder
	fmt.Fprintf(&table, "\n| kernel | Linux | %s |\n|---|---|%s\n",
		strings.Join(allBackends, " | "), strings.Repeat("---|", len(allBackends)))
	for _, k := range kernelTable {
		row := rows[k.name]
		if row == "" {
			row = "| " + k.name + " | not run |" +
				strings.Repeat(" |", len(allBackends))
		}
		table.WriteString(row + "\n")
	}
	return table.String()
}

// resultRows finds the rows of a table of results by their kernels' names.
func resultRows(text string) map[string]string {
	rows := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " ")
		if strings.HasPrefix(line, "| ") && isKernel(name) {
			rows[name] = line
		}
	}
	return rows
}

func isKernel(name string) bool {
	return slices.ContainsFunc(kernelTable, func(k kernel) bool { return k.name == name })
}

// resultRow counts scenarios by backend.
func (run kernelRun) resultRow() string {
	columns := []string{run.kernel.name, run.version + ", " + run.kernel.arch}
	for _, backend := range allBackends {
		columns = append(columns, run.result(backend))
	}
	return "| " + strings.Join(columns, " | ") + " |"
}

// result says how many of a backend's scenarios passed: "15/15", or "no" if the
// kernel cannot have the backend.
func (run kernelRun) result(backend string) string {
	if run.missing(backend) != "" {
		return "no"
	}
	var total, good int
	for _, c := range run.cells {
		if c.backend != backend {
			continue
		}
		total++
		if c.verdict == passed {
			good++
		}
	}
	return fmt.Sprintf("%d/%d", good, total)
}

// missing says why the kernel cannot have a backend at all: the one reason why
// none of its scenarios can be played. It is empty if some can.
func (run kernelRun) missing(backend string) string {
	reason := ""
	for _, c := range run.cells {
		if c.backend != backend {
			continue
		}
		if c.verdict != cannot || reason != "" && c.reason != reason {
			return ""
		}
		reason = c.reason
	}
	return reason
}

// notes are those of a kernel, for what did not pass.
func (run kernelRun) notes() []note {
	var notes []note
	for _, backend := range allBackends {
		if reason := run.missing(backend); reason != "" {
			notes = append(notes, note{everything, reason, run.kernel.name, backend})
			continue
		}
		for _, c := range run.cells {
			if c.backend != backend || c.verdict == passed {
				continue
			}
			reason := c.reason
			if c.verdict == failed {
				reason = didNotPass
			}
			notes = append(notes, note{c.name, reason, run.kernel.name, backend})
		}
	}
	return notes
}
