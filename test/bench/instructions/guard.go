// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/synspy/synspy/test/bench/figures"
)

// errDearer says that packets pay more than before.
var errDearer = errors.New("packets pay more for synspy than before")

// A figure may rise by a fiftieth, or by three times its spread: what is more is no chance.
const (
	allowedPart    = 0.02
	allowedSpreads = 3
)

// leastSpread is told of figures whose boots happen to agree, in instructions: repeated boots of
// all figures have been seen to differ by so much.
const leastSpread = 20

// change is what became of one figure.
type change struct {
	cost
	before, after, allowed float64
}

func (c change) dearer() bool { return c.after-c.before > c.allowed }

// allowedRise is by how much a figure may rise.
func allowedRise(before, spread float64) float64 {
	return max(allowedPart*before, allowedSpreads*max(spread, leastSpread))
}

// changes compares what was counted with the file if that was counted with the same
// builds, and with the base counted in the same machine otherwise.
func (all *instructions) changes(kept *keptCosts) ([]change, error) {
	costs := all.costs()
	before := make(map[cost]float64)
	if all.Builds == kept.Builds {
		for _, k := range kept.Costs {
			before[k.cost()] = k.Added
		}
	} else {
		for key, f := range costs {
			if key.base {
				key.base = false
				before[key] = f.value
			}
		}
	}
	var changes []change
	for key, f := range costs {
		if key.base || !slices.Contains(guardedVerbs, key.verb) {
			continue
		}
		was, ok := before[key]
		if !ok {
			return nil, fmt.Errorf("nothing to compare %s, %s, %s with: keep it (make keep-instructions)", key.verb, key.backend, key.operation)
		}
		changes = append(changes, change{key, was, f.value, allowedRise(was, kept.spreadOf(key))})
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.verb, b.verb), cmp.Compare(a.backend, b.backend), cmp.Compare(a.operation, b.operation))
	})
	return changes, nil
}

// cheaperOf takes each figure where it has risen less: what a rise by chance once did is
// not done twice.
func cheaperOf(changes, again []change) []change {
	for i := range changes {
		for _, other := range again {
			if other.cost == changes[i].cost && other.after-other.before < changes[i].after-changes[i].before {
				changes[i] = other
			}
		}
	}
	return changes
}

// renderChanges prints what has changed by more than chance, and fails if something is dearer.
func renderChanges(w io.Writer, changes []change) error {
	header := []string{"tracer", "operation", "before", "now", "may rise by", ""}
	var rows [][]string
	dearer := 0
	for _, c := range changes {
		var verdict string
		switch {
		case c.dearer():
			dearer++
			verdict = "DEARER"
		case c.before-c.after > c.allowed:
			verdict = "cheaper: keep it"
		default:
			continue
		}
		rows = append(rows, []string{c.verb + ", " + c.backend, c.operation, signed(c.before), signed(c.after), grouped(c.allowed), verdict})
	}
	if err := figures.PrintTable(w, "Added instructions that have changed", header, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d figures compared, %d dearer\n", len(changes), dearer)
	if dearer > 0 {
		return fmt.Errorf("%w: if it is worth that, say so: make keep-instructions, and commit test/bench/costs.json with the change", errDearer)
	}
	return nil
}
