// SPDX-License-Identifier: Apache-2.0

package load

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/reason"
)

// outcomesOf returns what the kernel side is told of a drop reason, by its name without that.
func outcomesOf(reason string) bpf.SynspyReasonOutcomes {
	outcomes := event.OutcomesOf(reason)
	return bpf.SynspyReasonOutcomes{Syn: uint8(outcomes.Syn), Ack: uint8(outcomes.Ack)}
}

// reasonTable is bpf/config.h's reason_outcomes: by number. Numbers change with every release,
// names hardly.
func reasonTable(reasons map[string]uint32) [256]bpf.SynspyReasonOutcomes {
	var table [256]bpf.SynspyReasonOutcomes
	for i := range table {
		table[i] = outcomesOf("")
	}
	for name, number := range reasons {
		if number < uint32(len(table)) {
			table[number] = outcomesOf(strings.TrimPrefix(name, reason.Prefix))
		}
	}
	return table
}

// placeTable is bpf/config.h's places. Should there be more than it holds, those go that
// say nothing.
func placeTable(here *facts.Facts) [16]bpf.SynspyPlace {
	reasons := reason.OfFunctions()
	last := func(name string) uint32 { return asNumber(reasons[name] == reason.Unspecified) }
	names := slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(a, b))
	})
	var table [16]bpf.SynspyPlace
	i := 0
	for _, name := range names {
		if reasons[name] == reason.Unspecified && here.TellReasons() {
			continue // as what no reason and no place tells
		}
		for _, code := range here.Code[name] {
			if i < len(table) {
				table[i] = bpf.SynspyPlace{
					Start: code.Start, Size: code.End - code.Start,
					Outcomes: outcomesOf(reasons[name]),
				}
				i++
			}
		}
	}
	return table
}

// movements is how many sets of counters there are.
const movements = 1 << event.NumCounters

// outcomeTable is bpf/config.h's outcomes_of: the outcomes that counters alone tell, by where they
// are found moved and which they are.
func outcomeTable() (table [4 * movements]uint8) {
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		if branch := o.Branch(); branch.ByCounters() {
			table[movement(&branch)] = uint8(o)
		}
	}
	return table
}

// movement is a branch's place in that table.
func movement(branch *event.Branch) int {
	at := bpf.SynspyStageSTAGE_ACK
	switch branch.At() {
	case event.AtSyn:
		at = bpf.SynspyStageSTAGE_SYN
	case event.AtICMP:
		at = bpf.SynspyStageSTAGE_ICMP
	}
	place := int(at) * movements
	for _, c := range branch.Counters {
		place |= 1 << c
	}
	return place
}
