// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"cmp"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// restsUnexplained is what an overflow without a reason lacks.
var restsUnexplained = []evidence.Need{evidence.NeedOwners, evidence.NeedThreads,
	evidence.NeedCalls, evidence.NeedThrottled, evidence.NeedOnCPU}

// About says in words what a kind of evidence is.
func About(n evidence.Need) string {
	switch n {
	case evidence.NeedThreads:
		return "what its threads did"
	case evidence.NeedCalls:
		return "which calls its threads were in"
	case evidence.NeedFailures:
		return "what accept() returned"
	case evidence.NeedStacks:
		return "the stacks of its threads"
	case evidence.NeedOwners:
		return "who holds the listener"
	case evidence.NeedOnCPU:
		return "where its threads computed"
	case evidence.NeedThrottled:
		return "the CPU quota of its cgroup"
	case evidence.NeedSysctls:
		return "the settings of its network namespace"
	case evidence.NeedIngress:
		return "what dies before the listener"
	case evidence.NeedDevices:
		return "the programs on network devices"
	case evidence.NeedWayOut:
		return "SYN-ACKs that are dropped on the way out"
	case evidence.NeedSynAcks:
		return "SYN-ACKs sent again"
	case evidence.NeedAccepts:
		return "what is accepted"
	case evidence.NeedSyns:
		return "which SYNs arrive"
	case evidence.NeedMembers, evidence.NeedDivision:
		return "each socket of the group"
	case evidence.NeedTimeline:
		return "the queues over time"
	case evidence.NeedCPU:
		return "the waiting for a CPU"
	}
	return string(n)
}

// weaken makes a finding possible at most where evidence that it rests on was refused, and says
// what it takes.
func (f *Found) weaken(e *evidence.Evidence) {
	refused := f.refused(e)
	if len(refused) == 0 {
		return
	}
	f.Confidence, f.lacking = event.ConfidencePossible, lacking(refused)
	var takes []string
	for _, g := range refused {
		f.saw(About(g.Need), "refused: takes "+list(g.By), "")
		for _, by := range g.By {
			takes = addOnce(takes, by)
		}
	}
	settles := "the same with " + list(takes)
	if f.Settles != "" {
		settles += "; then: " + f.Settles
	}
	f.Settles = settles
}

// Doubted adds to the verdict that this finding leads what was refused of its evidence.
func (f *Found) Doubted(e *evidence.Evidence, verdict string) string {
	switch {
	case f.lacking == "", f.ID == event.FindingOtherDrops: // which says so itself
		return verdict
	case f.ID == event.FindingHealthy:
		return advice.Upper(advice.Bodies(e)) + ", which proves nothing: " + f.lacking + "."
	}
	return strings.TrimSuffix(verdict, ".") + "; possible, and no more: " + f.lacking + "."
}

// lacking says what was refused, and for want of what.
func lacking(gaps []evidence.Gap) string {
	var what, takes []string
	for _, g := range gaps {
		what = addOnce(what, About(g.Need))
		for _, by := range g.By {
			takes = addOnce(takes, by)
		}
	}
	return "without " + list(takes) + " synspy could not see " + list(what)
}

// refused lists what was refused of what the finding rests on, each kind once.
func (f *Found) refused(e *evidence.Evidence) []evidence.Gap {
	gaps := slices.Clone(e.Missing)
	for i := range e.Listeners {
		if f.Listener == &e.Listeners[i].ID {
			gaps = append(gaps, e.Listeners[i].Missing...)
		}
	}
	var out []evidence.Gap
	for _, g := range gaps {
		if len(g.By) == 0 || !slices.Contains(f.rests, g.Need) {
			continue
		}
		i := slices.IndexFunc(out, func(o evidence.Gap) bool { return o.Need == g.Need })
		if i < 0 {
			out = append(out, evidence.Gap{Need: g.Need, By: slices.Clone(g.By)})
			continue
		}
		for _, by := range g.By {
			out[i].By = addOnce(out[i].By, by)
		}
	}
	slices.SortStableFunc(out, func(a, b evidence.Gap) int {
		return cmp.Compare(slices.Index(f.rests, a.Need), slices.Index(f.rests, b.Need))
	})
	return out
}

func addOnce(list []string, text string) []string {
	if slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

// list joins words: "a, b and c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
