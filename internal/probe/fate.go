// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
)

// reasonPrefix starts every enumerator of the kernel's enum skb_drop_reason.
const reasonPrefix = "SKB_DROP_REASON_"

// fateOf returns what the kernel side is told of a drop reason, by its name without that.
func fateOf(reason string) bpf.SynspyFate {
	fate := event.FateOf(reason)
	return bpf.SynspyFate{Syn: uint8(fate.Syn), Ack: uint8(fate.Ack)}
}

// fateTable is bpf/config.h's fates: by reason number. Numbers change with every release, names
// hardly.
func fateTable(reasons map[string]uint32) [256]bpf.SynspyFate {
	var table [256]bpf.SynspyFate
	for i := range table {
		table[i] = fateOf("")
	}
	for name, number := range reasons {
		if number < uint32(len(table)) {
			table[number] = fateOf(strings.TrimPrefix(name, reasonPrefix))
		}
	}
	return table
}

// hookSlow of netfilter runs what is hooked; who calls it is the hook.
const hookSlow = "nf_hook_slow"

// queueFunctions free what no program reads from a queue of netfilter's (NFQUEUE), and what the one that does
// refuses, the last since 6.11. No kernel tells a reason.
func queueFunctions() []string { return []string{"nf_queue", "nf_reinject", "nfqnl_reinject"} }

// reasonsOfFunctions are what functions free for that free for one reason alone, or for none that
// their place tells.
func reasonsOfFunctions() map[string]string {
	reasons := map[string]string{
		hookSlow: "NETFILTER_DROP", "enqueue_to_backlog": "CPU_BACKLOG",
		"packet_rcv": "PACKET_SOCK_ERROR", "tpacket_rcv": "PACKET_SOCK_ERROR",
	}
	for _, name := range queueFunctions() {
		reasons[name] = "NETFILTER_DROP"
	}
	for _, name := range ackFreers() {
		reasons[name] = unspecified
	}
	return reasons
}

// unspecified is the reason that says nothing.
const unspecified = "NOT_SPECIFIED"

// placeTable is bpf/config.h's places. Should there be more than it holds, those go that
// say nothing.
func placeTable(facts *Facts) [16]bpf.SynspyPlace {
	reasons := reasonsOfFunctions()
	last := func(name string) uint32 { return asNumber(reasons[name] == unspecified) }
	names := slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(a, b))
	})
	var table [16]bpf.SynspyPlace
	i := 0
	for _, name := range names {
		if reasons[name] == unspecified && facts.tellReasons() {
			continue // as what no reason and no place tells
		}
		for _, code := range facts.Code[name] {
			if i < len(table) {
				table[i] = bpf.SynspyPlace{Start: code.Start, Size: code.End - code.Start,
					Fate: fateOf(reasons[name])}
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
