// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
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
	accepted := lossVerdict(guest, workloads[0], 0.25)
	accepted.got += floorOf(guest, workloads[0])
	list := []verdict{
		accepted,
		lossVerdict(guest, workloads[1], 0.5),
		lossVerdict(guest, workloads[2], 0.5),
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
func lossVerdict(guest []result, load workload, part float64) verdict {
	loss := func(tracer string, ratio func(result) float64) spread { return lossOf(guest, tracer, load, ratio) }
	ours, theirs := loss(synspyName, result.ratio), loss(peerName, result.ratio)
	return verdict{
		known:  ours.n > 0 && theirs.n > 0,
		met:    max(0, ours.median) <= part*theirs.median,
		target: fmt.Sprintf("%s: at most %.2f of the script's loss", load.title, part),
		got: fmt.Sprintf("%.1f %% lost against %.1f %%, %.2f of it (by the clock %.1f %% against %.1f %%)",
			ours.median, theirs.median, max(0, ours.median)/theirs.median,
			loss(synspyName, result.wallRatio).median, loss(peerName, result.wallRatio).median),
	}
}

// lossOf is the throughput lost with a tracer, in per cent.
func lossOf(guest []result, tracer string, load workload, ratio func(result) float64) spread {
	return spreadOf(values(guest, "pair", tracer, load.name, func(r result) float64 { return 100 * (1 - ratio(r)) }))
}

// floorOf tells, where it is known, what is lost to a program that does nothing: it
// decides nothing, but says how much of synspy's loss is the kernel's price.
func floorOf(guest []result, load workload) string {
	empty := lossOf(guest, emptyName, load, result.ratio)
	if empty.n == 0 {
		return ""
	}
	return fmt.Sprintf(" (an empty program at the same place: %.1f %%)", empty.median)
}

// compare holds a median of synspy's against a part of the script's.
func compare(guest []result, kind, target, unit string, part float64, value func(result) float64) verdict {
	ours := spreadOf(values(guest, kind, synspyName, "", value))
	theirs := spreadOf(values(guest, kind, peerName, "", value))
	return verdict{
		known: ours.n > 0 && theirs.n > 0, met: ours.median <= part*theirs.median, target: target,
		got: fmt.Sprintf("%.2f %s against %.2f %s, %.2f of it", ours.median, unit, theirs.median, unit, ours.median/theirs.median),
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
			len(ours)-wrong, len(ours), floodSize, len(ours)-unbalanced),
	}}
}
