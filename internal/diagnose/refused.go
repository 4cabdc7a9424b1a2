// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// rests lists what findings presume was looked for: one that says what threads did needs to know which of them accept, and a queue is
// only called too small where nothing else was found. Where a piece of it was refused, the finding is possible at most.
var rests = map[event.FindingID][]Need{
	event.FindingCPUStarved:         {NeedCalls},
	event.FindingAcceptLoopBlocked:  {NeedThreads, NeedCalls},
	event.FindingAcceptLoopBusy:     {NeedThreads, NeedCalls, NeedOnCPU},
	event.FindingNoAcceptor:         {NeedOwners, NeedThreads, NeedCalls, NeedAccepts},
	event.FindingAcceptRateExceeded: {NeedThreads, NeedCalls, NeedThrottled},
	event.FindingConnectionBurst:    {NeedThreads, NeedCalls, NeedThrottled},
	event.FindingBacklogTooSmall:    {NeedThreads, NeedCalls, NeedThrottled, NeedSysctls},
	event.FindingBacklogCapped:      {NeedThreads, NeedCalls, NeedThrottled},
	event.FindingReuseportImbalance: {NeedMembers},
	event.FindingReturnPathLost:     {NeedSynAcks, NeedWayOut},
	event.FindingClientGaveUp:       {NeedSynAcks},
	event.FindingNoSynArrived:       {NeedSyns, NeedIngress, NeedDevices},
	event.FindingHealthy:            {NeedSyns, NeedIngress},
}

// restsUnexplained is what an overflow without a reason lacks.
var restsUnexplained = []Need{NeedOwners, NeedThreads, NeedCalls, NeedThrottled, NeedOnCPU}

// about says in words what a kind of evidence is.
func (n Need) about() string {
	switch n {
	case NeedThreads:
		return "what its threads did"
	case NeedCalls:
		return "which calls its threads were in"
	case NeedFailures:
		return "what accept() returned"
	case NeedStacks:
		return "the stacks of its threads"
	case NeedOwners:
		return "who holds the listener"
	case NeedOnCPU:
		return "where its threads computed"
	case NeedThrottled:
		return "the CPU quota of its cgroup"
	case NeedSysctls:
		return "the settings of its network namespace"
	case NeedIngress:
		return "what dies before the listener"
	case NeedDevices:
		return "the programs on network devices"
	case NeedWayOut:
		return "SYN-ACKs that are dropped on the way out"
	case NeedSynAcks:
		return "SYN-ACKs sent again"
	case NeedAccepts:
		return "what is accepted"
	case NeedSyns:
		return "which SYNs arrive"
	case NeedMembers, NeedDivision:
		return "each socket of the group"
	case NeedTimeline:
		return "the queues over time"
	case NeedCPU:
		return "the waiting for a CPU"
	}
	return string(n)
}

// weaken makes a finding possible at most where evidence that it rests on was refused, and says what it takes.
func (f *found) weaken(e *Evidence) {
	refused := f.refused(e)
	if len(refused) == 0 {
		return
	}
	f.Confidence, f.lacking = event.ConfidencePossible, lacking(refused)
	var takes []string
	for _, g := range refused {
		f.saw(g.Need.about(), "refused: takes "+list(g.By), "")
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

// doubted adds to the verdict that this finding leads what was refused of its evidence.
func (f *found) doubted(e *Evidence, verdict string) string {
	switch {
	case f.lacking == "", f.ID == event.FindingOtherDrops: // which says so itself
		return verdict
	case f.ID == event.FindingHealthy:
		return upper(bodies(e)) + ", which proves nothing: " + f.lacking + "."
	}
	return strings.TrimSuffix(verdict, ".") + "; possible, and no more: " + f.lacking + "."
}

// lacking says what was refused, and for want of what.
func lacking(gaps []Gap) string {
	var what, takes []string
	for _, g := range gaps {
		what = addOnce(what, g.Need.about())
		for _, by := range g.By {
			takes = addOnce(takes, by)
		}
	}
	return "without " + list(takes) + " synspy could not see " + list(what)
}

// refused lists what was refused of what the finding rests on, each kind once.
func (f *found) refused(e *Evidence) []Gap {
	gaps := slices.Clone(e.Missing)
	for i := range e.Listeners {
		if f.Listener == &e.Listeners[i].ID {
			gaps = append(gaps, e.Listeners[i].Missing...)
		}
	}
	var out []Gap
	for _, g := range gaps {
		if len(g.By) == 0 || !slices.Contains(f.rests, g.Need) {
			continue
		}
		i := slices.IndexFunc(out, func(o Gap) bool { return o.Need == g.Need })
		if i < 0 {
			out = append(out, Gap{Need: g.Need, By: slices.Clone(g.By)})
			continue
		}
		for _, by := range g.By {
			out[i].By = addOnce(out[i].By, by)
		}
	}
	slices.SortStableFunc(out, func(a, b Gap) int {
		return cmp.Compare(slices.Index(f.rests, a.Need), slices.Index(f.rests, b.Need))
	})
	return out
}

// lacks tells whether evidence of a kind is not there. What was refused is another matter: findings that rest on it are weakened.
func (e *Evidence) lacks(n Need) bool {
	return slices.ContainsFunc(e.Missing, func(g Gap) bool { return g.Need == n && len(g.By) == 0 })
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
