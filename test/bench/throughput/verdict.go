// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"errors"
	"fmt"
	"io"

	"github.com/synspy/synspy/test/bench/figures"
	"github.com/synspy/synspy/test/bench/traffic"
)

// verdict is one target and whether it is met.
type verdict struct {
	met    bool
	known  bool // false where there is nothing to compare with
	target string
	got    string
}

// renderTargets prints the project's targets against the script.
func renderTargets(w io.Writer, all []result) error {
	missed := false
	for _, v := range targets(all) {
		word := "PASS"
		switch {
		case !v.known:
			word, v.got = "----", "not measured"
		case !v.met:
			word, missed = "MISS", true
		}
		fmt.Fprintf(w, "%s  %s: %s\n", word, v.target, v.got)
	}
	if missed {
		return errMissed
	}
	return nil
}

func targets(all []result) []verdict {
	guest := of(all, func(r result) bool { return r.Where == inGuest })
	accepted := lossVerdict(guest, traffic.Workloads[0], 0.25)
	accepted.got += floorOf(guest, traffic.Workloads[0])
	list := []verdict{
		accepted,
		lossVerdict(guest, traffic.Workloads[1], 0.5),
		lossVerdict(guest, traffic.Workloads[2], 0.5),
	}
	list = append(list, floodVerdicts(all)...)
	return append(list,
		compare(guest, "memory", "at most a quarter of the script's memory", "MB", 0.25,
			func(r result) float64 { return float64(r.Resident) / 1e6 }),
		compare(guest, "start", "ready sooner than the script", "s", 1,
			func(r result) float64 { return r.Seconds }),
		scaleVerdict(all))
}

// lossVerdict compares the throughput lost with synspy and with the script. That by
// the clock is told too, but other programs decide over it.
func lossVerdict(guest []result, load traffic.Workload, part float64) verdict {
	loss := func(tracer string, ratio func(result) float64) figures.Spread {
		return lossOf(guest, tracer, load, ratio)
	}
	ours, theirs := loss(synspyName, result.ratio), loss(peerName, result.ratio)
	return verdict{
		known:  ours.N > 0 && theirs.N > 0,
		met:    max(0, ours.Median) <= part*theirs.Median,
		target: fmt.Sprintf("%s: at most %.2f of the script's loss", load.Title, part),
		got: fmt.Sprintf("%.1f %% lost against %.1f %%, %.2f of it (by the clock %.1f %% against %.1f %%)",
			ours.Median, theirs.Median, max(0, ours.Median)/theirs.Median,
			loss(synspyName, result.wallRatio).Median, loss(peerName, result.wallRatio).Median),
	}
}

// lossOf is the throughput lost with a tracer, in per cent.
func lossOf(guest []result, tracer string, load traffic.Workload, ratio func(result) float64) figures.Spread {
	return figures.SpreadOf(values(guest, "pair", tracer, load.Name, func(r result) float64 { return 100 * (1 - ratio(r)) }))
}

// floorOf tells, where it is known, what is lost to a program that does nothing: it
// decides nothing, but says how much of synspy's loss is the kernel's price.
func floorOf(guest []result, load traffic.Workload) string {
	empty := lossOf(guest, emptyName, load, result.ratio)
	if empty.N == 0 {
		return ""
	}
	return fmt.Sprintf(" (an empty program at the same place: %.1f %%)", empty.Median)
}

// compare holds a median of synspy's against a part of the script's.
func compare(guest []result, kind, target, unit string, part float64, value func(result) float64) verdict {
	ours := figures.SpreadOf(values(guest, kind, synspyName, "", value))
	theirs := figures.SpreadOf(values(guest, kind, peerName, "", value))
	return verdict{
		known: ours.N > 0 && theirs.N > 0, met: ours.Median <= part*theirs.Median, target: target,
		got: fmt.Sprintf("%.2f %s against %.2f %s, %.2f of it", ours.Median, unit, theirs.Median, unit, ours.Median/theirs.Median),
	}
}

// floodVerdicts are about every flood, on each machine and with either rate.
func floodVerdicts(all []result) []verdict {
	ours := of(all, func(r result) bool { return r.Kind == "flood" && r.Tracer != peerName })
	wrong, unbalanced := 0, 0
	for _, r := range ours {
		if r.FinalCounted != r.Drops {
			wrong++
		}
		if !r.Balanced {
			unbalanced++
		}
	}
	return []verdict{{
		known: len(ours) > 0, met: wrong == 0 && unbalanced == 0, target: "every drop counted",
		got: fmt.Sprintf("%d of %d floods of %d drops counted to the unit, %d with a balanced ledger",
			len(ours)-wrong, len(ours), traffic.FloodSize, len(ours)-unbalanced),
	}}
}

// errMissed says that a target of the project is missed.
var errMissed = errors.New("a target is missed")
