// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// measures are what is counted of a package, that is, of a folder with Go files.
type measures struct {
	files int // Go files without tests
	cycle int // files of the largest set in which each reaches every other one
}

// allowed is what a package may have that ceilings does not name.
var allowed = measures{files: 25, cycle: 6}

// ceilings are the packages that have more than is allowed: what they had when their row was
// written. A change may lower these numbers, and removes a row that is no longer needed.
var ceilings = map[string]measures{}

// longLinesCeiling is how many lines of Go may have more than 100 columns, in the whole module. It
// may only fall.
const longLinesCeiling = 1800

func TestCeilings(t *testing.T) {
	graphs := load(t, "./...").fileGraphs()
	for folder, graph := range graphs {
		cycle := graph.largestCycle()
		is := measures{files: len(graph), cycle: len(cycle)}
		ceiling, named := ceilings[folder]
		if !named {
			ceiling = allowed
		}
		if is.files > ceiling.files {
			t.Errorf("%s has %d files, and may have %d: give what is new a package of its own",
				folder, is.files, ceiling.files)
		}
		if is.cycle > ceiling.cycle {
			t.Errorf("%s has %d files that use each other in circles, and may have %d: move "+
				"what two of them need into a third one, or pass it as a value: %s",
				folder, is.cycle, ceiling.cycle, strings.Join(cycle, " "))
		}
		if slack(is.files, ceiling.files, allowed.files) ||
			slack(is.cycle, ceiling.cycle, allowed.cycle) {
			t.Errorf("%s is better than its row says: write {files: %d, cycle: %d}, or remove it",
				folder, max(is.files, allowed.files), max(is.cycle, allowed.cycle))
		}
	}
	for folder := range ceilings {
		if graphs[folder] == nil {
			t.Errorf("%s has no Go files any more: remove its row", folder)
		}
	}
}

func TestLongLines(t *testing.T) {
	long := longLines(t)
	if long > longLinesCeiling {
		t.Errorf("%d lines of Go have more than 100 columns (a tab is 8), and %d may: "+
			"wrap those that the change adds", long, longLinesCeiling)
	}
	if slack(long, longLinesCeiling, 0) {
		t.Errorf("%d lines of Go have more than 100 columns: lower longLinesCeiling to that", long)
	}
}

// slack reports whether a ceiling is more than a tenth too high. Less is let pass, so that changes
// made side by side need not all write the same row.
func slack(is, ceiling, allowed int) bool {
	return ceiling > allowed && 10*max(is, allowed) < 9*ceiling
}

// longLines counts the lines of Go of more than 100 columns.
func longLines(t *testing.T) int {
	t.Helper()
	long := 0
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
		for line := range strings.Lines(string(content)) {
			if columns(strings.TrimSuffix(line, "\n")) > 100 {
				long++
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
