// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/synspy/synspy/test/bench/figures"
	"github.com/synspy/synspy/test/bench/tracer"
)

// cost is one figure of the tables: an operation's instructions with a variant.
type cost struct {
	verb, backend, operation string
	base                     bool
}

// figure is a cost over all boots.
type figure struct {
	value  float64 // the median of the boots
	spread float64 // between the boots
}

// costs gives what each variant adds to what an untraced kernel executes for the operation,
// whose own cost is there as well.
func (all *instructions) costs() map[cost]figure {
	boots := make(map[cost][]float64)
	for _, boot := range all.Boots {
		for key, value := range boot.added() {
			boots[key] = append(boots[key], value)
		}
	}
	costs := make(map[cost]figure)
	for key, values := range boots {
		s := figures.SpreadOf(values)
		costs[key] = figure{s.Median, s.Max - s.Min}
	}
	return costs
}

// added is that of one boot.
func (boot *counting) added() map[cost]float64 {
	untraced := make(map[string][]float64) // before and after everything else
	for _, c := range boot.Counted {
		if c.Verb == tracer.VerbUntraced {
			untraced[c.Operation] = append(untraced[c.Operation], c.Median)
		}
	}
	costs := make(map[cost]float64)
	for _, c := range boot.Counted {
		base := figures.Quantile(untraced[c.Operation], 0.5)
		costs[cost{c.Verb, c.Backend, c.Operation, c.Base}] = c.Median - base
		if c.Verb == tracer.VerbUntraced {
			costs[cost{verb: tracer.VerbUntraced, operation: c.Operation}] = base
		}
	}
	return costs
}

// column is one of a table of costs.
type column struct{ title, verb, backend string }

func backendColumns(verb, title string) (columns []column) {
	for _, backend := range countingBackends {
		columns = append(columns, column{title + " " + backend, verb, backend})
	}
	return columns
}

// instructionTables are the columns of the tables that are printed, with what they show.
func instructionTables() []struct {
	title   string
	columns []column
} {
	trace := slices.Concat([]column{{"untraced", tracer.VerbUntraced, ""}}, backendColumns(tracer.VerbTrace, "trace,"),
		[]column{{"bpftrace script", tracer.VerbScript, ""}}, backendColumns(tracer.VerbEmpty, "empty,"))
	other := slices.Concat([]column{{"untraced", tracer.VerbUntraced, ""}}, backendColumns(tracer.VerbDiagnose, "diagnose,"),
		backendColumns(tracer.VerbTraceAll, "trace --rate 0,"))
	return []struct {
		title   string
		columns []column
	}{
		{"Instructions an operation, and what synspy trace adds; empty: programs that return at once at the same places", trace},
		{"What diagnose adds, and trace when each drop is a record", other},
	}
}

// operationRows fills a table; a column of which nothing was counted is left out.
func operationRows(costs map[cost]figure, columns []column) (header []string, rows [][]string) {
	columns = slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		return !slices.ContainsFunc(operations, func(o operation) bool {
			_, ok := costs[cost{verb: c.verb, backend: c.backend, operation: o.name}]
			return ok
		})
	})
	header = []string{"operation"}
	for _, c := range columns {
		header = append(header, c.title)
	}
	if len(columns) < 2 {
		return header, nil // nothing beside the untraced kernel
	}
	for _, o := range operations {
		row := []string{o.title}
		counted := false
		for _, c := range columns {
			f, ok := costs[cost{verb: c.verb, backend: c.backend, operation: o.name}]
			text := "-"
			switch {
			case ok && c.verb == tracer.VerbUntraced:
				text = grouped(f.value)
			case ok:
				text = signed(f.value)
				counted = true
			}
			row = append(row, text)
		}
		if counted {
			rows = append(rows, row)
		}
	}
	return header, rows
}

// grouped writes a whole number with its thousands apart.
func grouped(value float64) string {
	digits := strconv.FormatFloat(math.Abs(math.Round(value)), 'f', 0, 64)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	if math.Round(value) < 0 {
		return "-" + digits
	}
	return digits
}

// tenth leaves one decimal.
func tenth(value float64) float64 { return math.Round(10*value) / 10 }

func signed(value float64) string {
	if math.Round(value) > 0 {
		return "+" + grouped(value)
	}
	return grouped(value)
}

// programRows lists the programs that ran, of the last boot. Those that return at once are
// told of by their costs.
func (all *instructions) programRows(verbs ...string) (header []string, rows [][]string) {
	header = []string{"tracer", "operation", "BPF program", "runs", "instructions"}
	if len(all.Boots) == 0 {
		return header, nil
	}
	for _, c := range all.Boots[len(all.Boots)-1].Counted {
		if !slices.Contains(verbs, c.Verb) || c.Base {
			continue
		}
		for _, p := range c.Programs {
			rows = append(rows, []string{c.Verb + ", " + c.Backend, c.Operation, p.Name,
				strconv.FormatFloat(p.Runs, 'f', 2, 64), grouped(p.Instructions)})
		}
	}
	return header, rows
}

// emptyRun is what the kernel's statistics count of one run of a program that returns at once.
func (all *instructions) emptyRun() (instructions float64, known bool) {
	for _, boot := range all.Boots {
		for _, c := range boot.Counted {
			if c.Verb == tracer.VerbEmpty && len(c.Programs) > 0 {
				return c.Programs[0].Instructions / c.Programs[0].Runs, true
			}
		}
	}
	return 0, false
}

// renderInstructions prints all tables.
func renderInstructions(w io.Writer, all *instructions) error {
	costs := all.costs()
	for _, t := range instructionTables() {
		header, rows := operationRows(costs, t.columns)
		if err := figures.PrintTable(w, t.title, header, rows); err != nil {
			return err
		}
	}
	header, rows := all.programRows(tracer.VerbTrace, tracer.VerbTraceAll, tracer.VerbDiagnose)
	title := "By program, an operation; " + all.emptyNote()
	if err := figures.PrintTable(w, title, header, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "Debian's Linux %s\n%s\n%s\n", all.Builds.Kernel, all.Builds.Clang, all.Builds.QEMU)
	return nil
}

// emptyNote says what of each run is the counting.
func (all *instructions) emptyNote() string {
	if n, known := all.emptyRun(); known {
		return fmt.Sprintf("of each run %.0f are the kernel's own for a program that returns at once, most of them its counting", n)
	}
	return "a part of each run is the kernel's own counting"
}
