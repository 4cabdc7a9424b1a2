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

// fateOfReason sorts the kernel's drop reasons (include/net/dropreason-core.h) by
// what they mean for a SYN. Numbers change with every release, names hardly.
func fateOfReason(name string) bpf.SynspyFate {
	name = strings.TrimPrefix(name, reasonPrefix)
	switch name {
	case "NOT_SPECIFIED":
		return bpf.SynspyFateFATE_NONE
	case "SKB_CONSUMED", "OTHERHOST", "PACKET_SOCK_ERROR", "QUEUE_PURGE", "SKB_CSUM", "SOCKET_RCVBUFF", // no loss; the last two are raw sockets' copies (rawv6_rcv_skb)
		"TC_EGRESS", "BPF_CGROUP_EGRESS", "SKB_GSO_SEG", "FULL_RING", "CAKE_FLOOD", "DUALPI2_STEP_DROP": // transmit
		return bpf.SynspyFateFATE_IGNORED
	case "NO_SOCKET":
		return bpf.SynspyFateFATE_NO_SOCKET
	case "TCP_FLAGS":
		return bpf.SynspyFateFATE_FLAGS
	case "TCP_RFC7323_PAWS", "TCP_RFC7323_PAWS_ACK", "TCP_RFC7323_TSECR", "TCP_OVERWINDOW", "TCP_OLD_SEQUENCE",
		"TCP_INVALID_SEQUENCE", "TCP_INVALID_END_SEQUENCE", "TCP_INVALID_ACK_SEQUENCE", "TCP_OLD_ACK", "TCP_TOO_OLD_ACK",
		"TCP_ACK_UNSENT_DATA", "TCP_RESET":
		return bpf.SynspyFateFATE_UNFIT
	case "TCP_INVALID_SYN":
		return bpf.SynspyFateFATE_SYN
	case "TCP_RFC7323_TW_PAWS":
		return bpf.SynspyFateFATE_TIMEWAIT_PAWS
	case "SOCKET_FILTER":
		return bpf.SynspyFateFATE_FILTER
	case "NETFILTER_DROP":
		return bpf.SynspyFateFATE_NETFILTER
	case "IP_RPFILTER":
		return bpf.SynspyFateFATE_RP_FILTER
	case "TCP_CSUM", "IP_CSUM":
		return bpf.SynspyFateFATE_CHECKSUM
	case "CPU_BACKLOG":
		return bpf.SynspyFateFATE_CPU_BACKLOG
	case "XFRM_POLICY", "TCP_MINTTL":
		return bpf.SynspyFateFATE_POLICY
	}
	for prefix, fate := range map[string]bpf.SynspyFate{
		"TCP_MD5": bpf.SynspyFateFATE_AUTH, "TCP_AO": bpf.SynspyFateFATE_AUTH, "TCP_AUTH": bpf.SynspyFateFATE_AUTH,
		"QDISC_": bpf.SynspyFateFATE_IGNORED, "FQ_": bpf.SynspyFateFATE_IGNORED, "NEIGH_": bpf.SynspyFateFATE_IGNORED,
	} {
		if strings.HasPrefix(name, prefix) {
			return fate
		}
	}
	return bpf.SynspyFateFATE_OTHER
}

// fateTable is bpf/maps.h's fates: by reason number.
func fateTable(reasons map[string]uint32) [256]uint8 {
	var table [256]uint8
	for i := range table {
		table[i] = uint8(bpf.SynspyFateFATE_OTHER)
	}
	for name, number := range reasons {
		if number < uint32(len(table)) {
			table[number] = uint8(fateOfReason(name))
		}
	}
	return table
}

// hookSlow of netfilter runs what is hooked; who calls it is the hook.
const hookSlow = "nf_hook_slow"

// queueFunctions free what no program reads from a queue of netfilter's (NFQUEUE), and what the one that does
// refuses, the last since 6.11. No kernel tells a reason.
func queueFunctions() []string { return []string{"nf_queue", "nf_reinject", "nfqnl_reinject"} }

// fatesOfFunctions sorts the functions that free where no reason is told.
func fatesOfFunctions() map[string]bpf.SynspyFate {
	fates := map[string]bpf.SynspyFate{
		hookSlow: bpf.SynspyFateFATE_NETFILTER, "enqueue_to_backlog": bpf.SynspyFateFATE_CPU_BACKLOG,
		"packet_rcv": bpf.SynspyFateFATE_IGNORED, "tpacket_rcv": bpf.SynspyFateFATE_IGNORED,
	}
	for _, name := range queueFunctions() {
		fates[name] = bpf.SynspyFateFATE_NETFILTER
	}
	for _, name := range ackFreers() {
		fates[name] = bpf.SynspyFateFATE_NONE
	}
	return fates
}

// placeTable is bpf/maps.h's places. Should there be more than it holds, those go that
// say nothing.
func placeTable(facts *Facts) [16]bpf.SynspyPlace {
	fates := fatesOfFunctions()
	names := slices.SortedFunc(maps.Keys(fates), func(a, b string) int {
		return cmp.Or(cmp.Compare(fates[b], fates[a]), cmp.Compare(a, b))
	})
	var table [16]bpf.SynspyPlace
	i := 0
	for _, name := range names {
		if fates[name] == bpf.SynspyFateFATE_NONE && facts.tellReasons() {
			continue // as what no reason and no place tells
		}
		for _, code := range facts.Code[name] {
			if i < len(table) {
				table[i] = bpf.SynspyPlace{Start: code.Start, Size: code.End - code.Start,
					Fate: uint64(fates[name])}
				i++
			}
		}
	}
	return table
}

// movements is how many sets of counters there are.
const movements = 1 << event.NumCounters

// outcomeTable is bpf/ledger.h's outcomes_of: the outcomes that counters alone tell, by where they
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
	switch {
	case branch.Cause == event.CauseICMPError:
		at = bpf.SynspyStageSTAGE_ICMP
	case branch.Stage == event.StageSyn:
		at = bpf.SynspyStageSTAGE_SYN
	}
	place := int(at) * movements
	for _, c := range branch.Counters {
		place |= 1 << c
	}
	return place
}
