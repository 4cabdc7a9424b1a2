// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// note says why a scenario did not pass on a kernel with a backend.
type note struct {
	scenario string // "everything" where the kernel cannot have the backend
	reason   string
	kernel   string
	backend  string
}

const (
	everything = "everything"
	didNotPass = "failed" // the reason of a scenario that should have passed
)

// A line of notes is "- scenario, scenario: reason (kernel: backend, backend; kernel: all)".
const (
	noteBegin = "- "
	noteWhere = " ("
	allOfThem = "all"
)

// formatNotes writes a line for the scenarios that have the same reason at the same places, in the
// order of their names. Kernels are told in the order given.
func formatNotes(notes []note, kernels []string) string {
	type cause struct{ scenario, reason string }
	type line struct{ reason, where string }
	byCause := map[cause][]note{}
	for _, n := range notes {
		c := cause{n.scenario, n.reason}
		byCause[c] = append(byCause[c], n)
	}
	scenarios := map[line][]string{}
	for c, notes := range byCause {
		l := line{c.reason, places(notes, kernels)}
		scenarios[l] = append(scenarios[l], c.scenario)
	}
	var lines []string
	for l, names := range scenarios {
		slices.Sort(names)
		lines = append(lines, fmt.Sprintf("%s%s: %s%s%s)\n",
			noteBegin, strings.Join(names, ", "), l.reason, noteWhere, l.where))
	}
	if len(lines) == 0 {
		return ""
	}
	slices.Sort(lines)
	return "\n" + strings.Join(lines, "")
}

// places says on which kernels, and with which of their backends.
func places(notes []note, kernels []string) string {
	var places []string
	for _, kernel := range kernels {
		var backends []string
		for _, backend := range allBackends {
			if slices.ContainsFunc(notes, func(n note) bool {
				return n.kernel == kernel && n.backend == backend
			}) {
				backends = append(backends, backend)
			}
		}
		if len(backends) == len(allBackends) {
			backends = []string{allOfThem}
		}
		if len(backends) > 0 {
			places = append(places, kernel+": "+strings.Join(backends, ", "))
		}
	}
	return strings.Join(places, "; ")
}

// parseNotes reads what formatNotes wrote, and passes over every other line.
func parseNotes(text string) []note {
	var notes []note
	for line := range strings.Lines(text) {
		line, isNote := strings.CutPrefix(strings.TrimSpace(line), noteBegin)
		at := strings.LastIndex(line, noteWhere)
		if !isNote || at < 0 {
			continue
		}
		names, reason, _ := strings.Cut(line[:at], ": ")
		where := strings.TrimSuffix(line[at+len(noteWhere):], ")")
		for place := range strings.SplitSeq(where, "; ") {
			kernel, list, _ := strings.Cut(place, ": ")
			backends := strings.Split(list, ", ")
			if list == allOfThem {
				backends = allBackends
			}
			for _, backend := range backends {
				for name := range strings.SplitSeq(names, ", ") {
					notes = append(notes, note{name, reason, kernel, backend})
				}
			}
		}
	}
	return notes
}
