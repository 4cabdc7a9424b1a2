// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/test/bench/figures"
	"github.com/synspy/synspy/test/bench/tracer"
	"github.com/synspy/synspy/test/bench/traffic"
)

// render prints the results: the table, the BPF programs, the verdict.
func render(w io.Writer, all []result) error {
	slices.SortStableFunc(all, func(a, b result) int { return -strings.Compare(a.Where, b.Where) }) // the guest first
	if err := renderTable(w, all); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := renderPrograms(w, all); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := renderScale(w, all); err != nil {
		return err
	}
	return renderTargets(w, all)
}

// columns are the tracers of the table.
var columns = []struct{ name, title string }{
	{synspyName, "synspy trace"},
	{synspyAllName, "synspy trace --rate 0"},
	{peerName, "bpftrace script"},
	{emptyName, "empty program"},
}

// renderTable prints one table of everything but the BPF programs.
func renderTable(w io.Writer, all []result) error {
	header := []string{"machine", "measure", "nothing attached"}
	for _, c := range columns {
		header = append(header, c.title)
	}
	table := figures.NewTable(w, header)
	for _, machine := range of(all, func(r result) bool { return r.Kind == "machine" }) {
		here := of(all, func(r result) bool { return r.Where == machine.Where })
		label := machine.label(here)
		for _, row := range rows(here) {
			if err := table.Append(append([]string{label}, row...)); err != nil {
				return fmt.Errorf("make table: %w", err)
			}
			label = ""
		}
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	fmt.Fprint(w, throughputNote)
	return nil
}

const throughputNote = `Throughput: the part of the untraced one that is left, median (min..max) of interleaved pairs.
First in the fastest twentieth of each burst's moments, when nothing else on the machine disturbs; then by
the clock, other programs and their noise included.
Empty program: returns at once where synspy looks at SYNs (fexit of ` + tracer.EmptyPlace + `): the price of being
called there. Cookie ACKs do not come by.
`

// label says what machine it is, how synspy attached there and how often it was measured.
func (r result) label(here []result) string {
	pairs, backend := 0, "?"
	for _, r := range here {
		if r.Kind == "pair" {
			pairs = max(pairs, r.Round)
		}
		if r.Backend != "" {
			backend = r.Backend
		}
	}
	return fmt.Sprintf("%s, Linux %s, %d CPUs, %d pairs, synspy by %s", r.Where, r.Kernel, r.CPUs, pairs, backend)
}

// rows makes the rows of one machine, without its label.
func rows(here []result) [][]string {
	var rows [][]string
	add := func(title, untraced string, cell func(tracer string) string) {
		row := []string{title, untraced}
		for _, c := range columns {
			row = append(row, cell(c.name))
		}
		rows = append(rows, row)
	}
	for _, by := range []struct {
		title    string
		untraced func(result) float64
		ratio    func(result) float64
	}{
		{"", result.untraced, result.ratio},
		{" (by the clock)", result.wallUntraced, result.wallRatio},
	} {
		for _, load := range traffic.Workloads {
			untraced := figures.SpreadOf(values(here, "pair", "", load.Name, by.untraced))
			add(load.Title+by.title, untraced.Text(0, "/s"), func(tracer string) string {
				return figures.SpreadOf(values(here, "pair", tracer, load.Name, by.ratio)).Text(2, "")
			})
		}
	}
	add("exec to ready", "", func(tracer string) string {
		return figures.SpreadOf(values(here, "start", tracer, "", func(r result) float64 { return r.Seconds })).Text(2, " s")
	})
	const mega = 1e6
	add("peak memory (VmHWM)", "", func(tracer string) string {
		return figures.SpreadOf(values(here, "memory", tracer, "", func(r result) float64 { return float64(r.Resident) / mega })).Text(0, " MB")
	})
	add("BPF maps and programs", "", func(tracer string) string {
		return figures.SpreadOf(values(here, "memory", tracer, "", func(r result) float64 { return float64(r.BPF) / mega })).Text(1, " MB")
	})
	for _, f := range []struct {
		title string
		count func(result) int
	}{
		{"printed 1 s later", func(r result) int { return r.Printed }},
		{"told of 1 s later", func(r result) int { return r.Counted }},
		{"counted at the end", func(r result) int { return r.FinalCounted }},
	} {
		add(fmt.Sprintf("flood of %d drops: %s", traffic.FloodSize, f.title), "", func(tracer string) string {
			return figures.SpreadOf(values(here, "flood", tracer, "", func(r result) float64 { return float64(f.count(r)) })).Text(0, "")
		})
	}
	return rows
}

// renderPrograms prints what each BPF program costs for one frame.
func renderPrograms(w io.Writer, all []result) error {
	table := figures.NewTable(w, []string{"machine", "tracer", "workload", "BPF program", "runs a frame", "ns a run", "ns a frame"})
	for _, r := range all {
		// What timers, user space and other traffic run is not the frames' cost.
		if r.Kind != "program" || r.Runs < uint64(r.Frames)/2 {
			continue
		}
		err := table.Append([]string{r.Where, r.Tracer, r.Workload, r.Program,
			fmt.Sprintf("%.2f", float64(r.Runs)/float64(r.Frames)),
			strconv.FormatUint(r.Nanos/r.Runs, 10), strconv.FormatUint(r.Nanos/uint64(r.Frames), 10)})
		if err != nil {
			return fmt.Errorf("make table: %w", err)
		}
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

func of(all []result, keep func(result) bool) (kept []result) {
	for _, r := range all {
		if keep(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// values picks one number from each result of a kind, tracer and workload; empty
// names are any.
func values(all []result, kind, tracer, load string, value func(result) float64) (v []float64) {
	for _, r := range all {
		if r.Kind == kind && (tracer == "" || r.Tracer == tracer) && (load == "" || r.Workload == load) {
			v = append(v, value(r))
		}
	}
	return v
}
