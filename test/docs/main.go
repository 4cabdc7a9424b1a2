// SPDX-License-Identifier: Apache-2.0

// Docs writes on standard output what is made from Go: docs/causes.md from the table of causes,
// docs/playbook.md from that of findings, docs/schema/v1.json from the types of the records,
// bpf/outcomes.h from the outcomes, and the names of system calls from golang.org/x/sys.
// make generate says where each goes.
package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

func main() {
	pages := map[string]func(io.Writer) error{
		"outcomes":       outcomes,
		"causes":         causes,
		"playbook":       playbook,
		"schema":         schema,
		"syscalls-amd64": syscalls("amd64"),
		"syscalls-arm64": syscalls("arm64"),
	}
	if len(os.Args) != 2 || pages[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "docs: say what to write:", slices.Sorted(maps.Keys(pages)))
		os.Exit(2)
	}
	if err := pages[os.Args[1]](os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// causes writes one section a cause, in the table's order.
func causes(to io.Writer) error {
	var b strings.Builder
	b.WriteString(`<!-- Made by "make generate" from internal/event/cause.go and outcome.go: do not edit. -->
# Causes

Every record's ` + "`cause`" + ` is one of these names. They do not change; more may come.

| cause | stages | whose knob |
|---|---|---|
`)
	for _, c := range event.Causes() {
		fmt.Fprintf(&b, "| [%s](#%[1]s) | %s | %s |\n", c.Name, stages(c), c.Owner)
	}
	for _, c := range event.Causes() {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n", c.Name, sentence(c.Explain))
		fmt.Fprintf(&b, "- **The client sees:** %s.\n- **What to do** (%s): %s.\n",
			c.Client, c.Owner, c.Fix)
		rows := ways(c.Cause)
		if len(rows) == 0 {
			b.WriteString("- Not told apart so far: such a drop is counted as `kernel_other`.\n")
			continue
		}
		b.WriteString("\n| stage | action | client_sees | kernel function | counters that move |\n|---|---|---|---|---|\n")
		for _, row := range rows {
			b.WriteString(row)
		}
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// ways lists the distinct ways to die of a cause.
func ways(c event.Cause) []string {
	var rows []string
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		b := o.Branch()
		if b.Kind != event.KindDrop || b.Cause != c {
			continue
		}
		row := fmt.Sprintf("| %v | %v | %s | %s | %s |\n", b.Stage, b.Action,
			or(b.Sees(), "nothing"),
			or(b.Function, "named in the record"), or(strings.Join(o.CounterNames(),
				", "), "none of the listen path"))
		if !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
	}
	return rows
}

func stages(c event.CauseInfo) string {
	var names []string
	for _, s := range c.Stages {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
