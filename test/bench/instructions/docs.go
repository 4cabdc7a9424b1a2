// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/synspy/synspy/test/bench/tracer"
)

// What bench instructions writes lies between these lines of docs/benchmarks.md.
const (
	countsBegin = "<!-- instructions: written by make bench-instructions ARGS='-docs docs/benchmarks.md' -->"
	countsEnd   = "<!-- end of instructions -->"
)

// writeBenchmarks brings the tables in a document up to date.
func writeBenchmarks(path string, all *instructions) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write benchmarks: %w", err)
	}
	before, rest, found := strings.Cut(string(text), countsBegin+"\n")
	_, after, closed := strings.Cut(rest, countsEnd)
	if !found || !closed {
		return fmt.Errorf("write benchmarks to %s: %w", path, errors.New("no place for tables of instructions in it"))
	}
	updated := before + countsBegin + "\n\n" + all.markdown() + countsEnd + after
	if err := os.WriteFile(path, []byte(updated), 0o644); err != nil {
		return fmt.Errorf("write benchmarks: %w", err)
	}
	return nil
}

// markdown writes the tables and what they were counted with.
func (all *instructions) markdown() string {
	var text strings.Builder
	fmt.Fprintf(&text, "Debian's Linux %s; synspy compiled by %s; %s; machines booted: %d.\n\n", all.Builds.Kernel, all.Builds.Clang, all.Builds.QEMU, len(all.Boots))
	costs := all.costs()
	for _, t := range instructionTables() {
		header, rows := operationRows(costs, t.columns)
		markdownTable(&text, t.title, header, rows)
	}
	header, rows := all.programRows(tracer.VerbTrace)
	markdownTable(&text, "By program, an operation under trace; "+all.emptyNote(), header, rows)
	return text.String()
}

func markdownTable(text *strings.Builder, title string, header []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(text, "%s:\n\n| %s |\n|%s\n", title, strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, row := range rows {
		fmt.Fprintf(text, "| %s |\n", strings.Join(row, " | "))
	}
	text.WriteString("\n")
}
