// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// measures are what is counted of a package, that is, of a folder with Go files.
type measures struct {
	files int // Go files without tests
	cycle int // files of the largest set in which each reaches every other one
	long  int // lines of more than 100 columns, those of tests too
}

// allowed is what a package may have that ceilings does not name.
var allowed = measures{files: 25, cycle: 6, long: 0}

// ceilings are the packages that have more than is allowed: what they had when their row was
// written. A change may lower these numbers, and removes a row that is no longer needed.
var ceilings = map[string]measures{
	"cmd/synspy":                 {files: 25, cycle: 13, long: 231},
	"internal/app":               {files: 66, cycle: 51, long: 828},
	"internal/bpf":               {files: 25, cycle: 6, long: 4},
	"internal/canary":            {files: 25, cycle: 6, long: 50},
	"internal/diagnose":          {files: 40, cycle: 31, long: 1557},
	"internal/event":             {files: 25, cycle: 6, long: 507},
	"internal/kernel":            {files: 25, cycle: 6, long: 181},
	"internal/kernel/kerneltest": {files: 25, cycle: 6, long: 8},
	"internal/lab":               {files: 67, cycle: 46, long: 838},
	"internal/owner":             {files: 25, cycle: 12, long: 181},
	"internal/owner/containers":  {files: 25, cycle: 6, long: 50},
	"internal/probe":             {files: 43, cycle: 33, long: 576},
	"internal/render":            {files: 25, cycle: 8, long: 407},
	"internal/symbol":            {files: 25, cycle: 6, long: 139},
	"test/architecture":          {files: 25, cycle: 6, long: 35},
	"test/bench":                 {files: 37, cycle: 20, long: 205},
	"test/docs":                  {files: 25, cycle: 6, long: 11},
	"test/e2e":                   {files: 25, cycle: 6, long: 402},
	"test/sentences":             {files: 25, cycle: 6, long: 44},
	"test/vm":                    {files: 25, cycle: 19, long: 168},
}

func TestCeilings(t *testing.T) {
	graphs := load(t, "./...").fileGraphs()
	long := longLines(t)
	for folder := range long {
		if graphs[folder] == nil {
			graphs[folder] = fileGraph{} // of tests alone
		}
	}
	for folder, graph := range graphs {
		cycle := graph.largestCycle()
		is := measures{files: len(graph), cycle: len(cycle), long: len(long[folder])}
		ceiling, named := ceilings[folder]
		if !named {
			ceiling = allowed
		}
		if is.files > ceiling.files {
			t.Errorf("%s has %d files, and may have %d: give what is new a package of its own",
				folder, is.files, ceiling.files)
		}
		if is.cycle > ceiling.cycle {
			t.Errorf("%s has %d files that use each other in circles, and may have %d: "+
				"move what two of them need into a third one, or pass it as a value: %s",
				folder, is.cycle, ceiling.cycle, strings.Join(cycle, " "))
		}
		if is.long > ceiling.long {
			t.Errorf("%s has %d lines of more than 100 columns (a tab is 8), and may have %d: "+
				"wrap those that are new%s", folder, is.long, ceiling.long, some(long[folder]))
		}
		if named && (slack(is.files, ceiling.files, allowed.files) ||
			slack(is.cycle, ceiling.cycle, allowed.cycle) || slack(is.long, ceiling.long, allowed.long)) {
			t.Errorf("%s is better than its row says: write {files: %d, cycle: %d, long: %d}, or remove it",
				folder, max(is.files, allowed.files), max(is.cycle, allowed.cycle), is.long)
		}
	}
	for folder := range ceilings {
		if graphs[folder] == nil {
			t.Errorf("%s has no Go files any more: remove its row", folder)
		}
	}
}

// slack reports whether a ceiling is more than a tenth too high. Less is let pass, so that changes
// made side by side need not all write the same row.
func slack(is, ceiling, allowed int) bool {
	return ceiling > allowed && 10*max(is, allowed) < 9*ceiling
}

// some names the first few lines, if they are few.
func some(lines []string) string {
	if len(lines) > 10 {
		return ": git diff main | grep -E '^\\+.{100}' shows most of them"
	}
	return ": " + strings.Join(lines, " ")
}

// longLines lists the lines of more than 100 columns as file:line, by folder.
func longLines(t *testing.T) map[string][]string {
	t.Helper()
	long := make(map[string][]string)
	for _, name := range trackedFiles(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) || generated(content) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(content), "\n") {
			if columns(line) > 100 {
				dir := filepath.Dir(name)
				long[dir] = append(long[dir], fmt.Sprintf("%s:%d", name, i+1))
			}
		}
	}
	return long
}

// columns is how wide a line is, with tab stops of 8 columns, as .editorconfig says.
func columns(line string) int {
	n := 0
	for _, r := range line {
		if r == '\t' {
			n += 8 - n%8
		} else {
			n++
		}
	}
	return n
}

func TestColumns(t *testing.T) {
	for line, want := range map[string]int{"": 0, "\ta": 9, "\t\t": 16, "a\tb": 9, "é→": 2} {
		if got := columns(line); got != want {
			t.Errorf("%q is %d columns wide, want %d", line, got, want)
		}
	}
}
