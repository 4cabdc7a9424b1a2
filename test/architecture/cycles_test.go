// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fileGraph says which files of a package use something that another of its files declares: a
// function, a type, one of its methods or fields, a variable or constant.
type fileGraph map[string]map[string]bool

// fileGraphs are those of the packages, by their folders below the module's.
func (p *source) fileGraphs() map[string]fileGraph {
	graphs := make(map[string]fileGraph)
	folder := func(file string) fileGraph {
		dir, err := filepath.Rel(p.dir, filepath.Dir(file))
		if err != nil {
			panic(err) // all of them are absolute
		}
		if graphs[dir] == nil {
			graphs[dir] = make(fileGraph)
		}
		return graphs[dir]
	}
	for _, file := range p.files {
		name := p.fset.Position(file.Package).Filename
		folder(name)[filepath.Base(name)] = make(map[string]bool)
	}
	for identifier, object := range p.info.Uses {
		if !object.Pos().IsValid() {
			continue // of the language
		}
		from := p.fset.Position(identifier.Pos()).Filename
		to := p.fset.Position(object.Pos()).Filename
		if from != to && filepath.Dir(from) == filepath.Dir(to) {
			folder(from)[filepath.Base(from)][filepath.Base(to)] = true
		}
	}
	return graphs
}

// largestCycle lists the largest set of files each of which reaches every other one: a strongly
// connected component, by Tarjan's algorithm. It is empty where no two files know each other.
func (g fileGraph) largestCycle() []string {
	var (
		largest, stack []string
		index          = make(map[string]int) // in the order of the visit, from 1
		low            = make(map[string]int) // the least index on the stack that is reached
		onStack        = make(map[string]bool)
		visit          func(string)
	)
	visit = func(file string) {
		index[file] = len(index) + 1
		low[file] = index[file]
		stack = append(stack, file)
		onStack[file] = true
		for to := range g[file] {
			if index[to] == 0 {
				visit(to)
				low[file] = min(low[file], low[to])
			} else if onStack[to] {
				low[file] = min(low[file], index[to])
			}
		}
		if low[file] != index[file] {
			return
		}
		start := slices.Index(stack, file)
		component := slices.Clone(stack[start:])
		stack = stack[:start]
		for _, done := range component {
			onStack[done] = false
		}
		if len(component) > max(1, len(largest)) {
			largest = component
		}
	}
	for file := range g {
		if index[file] == 0 {
			visit(file)
		}
	}
	slices.Sort(largest)
	return largest
}

func TestLargestCycle(t *testing.T) {
	graph := func(edges ...string) fileGraph {
		g := make(fileGraph)
		for _, e := range edges {
			from, to := e[:1], e[1:]
			if g[from] == nil {
				g[from] = make(map[string]bool)
			}
			if to != "" {
				g[from][to] = true
			}
		}
		return g
	}
	for _, tt := range []struct {
		name string
		of   fileGraph
		want []string
	}{
		{"no arrows", graph("a", "b"), nil},
		{"one way", graph("ab", "bc", "ac"), nil},
		{"two", graph("ab", "ba", "bc"), []string{"a", "b"}},
		{"the larger", graph("ab", "ba", "cd", "de", "ec"), []string{"c", "d", "e"}},
		{"a round trip", graph("ab", "bc", "cd", "da", "eb"), []string{"a", "b", "c", "d"}},
		{"two rounds that touch", graph("ab", "ba", "bc", "cb"), []string{"a", "b", "c"}},
	} {
		if diff := cmp.Diff(tt.want, tt.of.largestCycle()); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
