// SPDX-License-Identifier: Apache-2.0

package event

import (
	"maps"
	"math"
	"slices"
)

// sharedMoves says what some outcomes do to counters that other traffic moves too.
// Each packet moves all counters of one of the sets, by at least one; which of the
// sets it was is not told. An empty set stands for branches that move none of them.
type sharedMoves struct {
	outcomes []Outcome
	sets     [][]string // names as nstat prints them
}

// shared has each outcome at most once. Read in 6.18; older kernels count a PAWS
// drop in TIME_WAIT as another one.
var shared = []sharedMoves{
	// ip_rcv_finish_core counts where it sets the reason. IPv6 has no such filter.
	{[]Outcome{OutcomeIngressRPFilter}, [][]string{{"IPReversePathFilter"}}},
	// ip_rcv_core counts an IPv4 header's bad checksum as a bad header as well. A
	// segment's is counted by tcp_v4_rcv and tcp_v4_do_rcv, and by their twins of IPv6.
	{[]Outcome{OutcomeIngressChecksum},
		[][]string{{"TcpInCsumErrors"}, {"IpExtInCsumErrors", "IpInHdrErrors"}}},
	// That one of the two moved is how these outcomes are known: disambiguate in
	// bpf/classify.h.
	{[]Outcome{OutcomeSynNoRouteBack, OutcomeSynNoRouteBackCookies, OutcomeAckNoRouteBack,
		OutcomeAckNoRouteBackReset,
		OutcomeAckNoRouteBackCookie, OutcomeAckNoRouteBackCookieEarly}, [][]string{
		{"IpOutNoRoutes"}, {"Ip6OutNoRoutes"}}},
	// tcp_inbound_hash counts nothing where a signature is there twice.
	{[]Outcome{OutcomeSynAuthFailed, OutcomeAckAuthFailed},
		[][]string{{"TCPMD5NotFound"}, {"TCPMD5Unexpected"},
			{"TCPMD5Failure"}, {"TCPAORequired"}, {"TCPAOBad"}, {"TCPAOKeyNotFound"}, {}}},
	// IPsec's counters are in /proc/net/xfrm_stat.
	{[]Outcome{OutcomeIngressPolicy}, [][]string{{"TCPMinTTLDrop"}, {}}},
	// Sequence numbers that do not fit move none.
	{[]Outcome{OutcomeAckBadQuiet}, [][]string{{"PAWSEstab"}, {"TSEcrRejected"}, {}}},
	// tcp_timewait_state_process counts PAWS where it sets the reason. Kernels without that
	// reason count it as one of the two, or not at all: the sequence number moves none.
	{[]Outcome{OutcomeIngressTimeWaitPAWS}, [][]string{{"PAWSTimewait"}}},
	{[]Outcome{OutcomeIngressTimeWait}, [][]string{{"PAWSTimewait"}, {"PAWSEstab"}, {}}},
	// tcp_validate_incoming, where it sets the reason.
	{[]Outcome{OutcomeIngressOtherConnection}, [][]string{{"TCPSYNChallenge"}}},
}

// checked reports whether some counter of the kernel's moves with every packet of the outcome.
func (o Outcome) checked() bool {
	return len(o.Branch().Counters) > 0 ||
		slices.ContainsFunc(shared, func(s sharedMoves) bool {
			return slices.Contains(s.outcomes, o) &&
				!slices.ContainsFunc(s.sets,
					func(set []string) bool { return len(set) == 0 })
		})
}

// Unchecked is how many of the counted packets may have moved no counter of the kernel's: they are
// known by events alone, and what had no event is not missed by anybody.
func Unchecked(counts []Count) (n uint64) {
	for _, c := range counts {
		for o := OutcomeNone + 1; o < NumOutcomes; o++ {
			if b := o.Branch(); b.Kind == KindDrop && b.Cause == c.Cause &&
				b.Stage == c.Stage && b.Action == c.Action && !o.checked() {
				n += c.Count
				break
			}
		}
	}
	return n
}

// SharedCounters lists the counters that other traffic moves too and that packets
// which die of this cause may move, by name.
func (c Cause) SharedCounters() []string {
	names := make(map[string]bool)
	for _, s := range shared {
		if slices.ContainsFunc(s.outcomes, func(o Outcome) bool {
			return o.Branch().Cause == c
		}) {
			for _, set := range s.sets {
				for _, name := range set {
					names[name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// ExplainShared returns how much of what shared counters moved by the counted
// packets are sure to have moved. Packets that moved one of several sets, and
// nobody knows which, are sure to have moved this one as often as the others did
// not move. A counter that is not in moved is one that the kernel does not have.
func ExplainShared(counted [NumOutcomes]uint64, moved map[string]uint64) map[string]uint64 {
	sure := make(map[string]uint64)
	for _, s := range shared {
		var packets uint64
		for _, o := range s.outcomes {
			packets += counted[o]
		}
		for i, set := range s.sets {
			of := packets
			for j, other := range s.sets {
				if j != i {
					of -= min(of, atMost(other, moved))
				}
			}
			if of == 0 {
				continue
			}
			for _, name := range set {
				sure[name] += of
			}
		}
	}
	return sure
}

// atMost is how many packets can have moved all counters of a set.
func atMost(set []string, moved map[string]uint64) uint64 {
	most := uint64(math.MaxUint64)
	for _, name := range set {
		most = min(most, moved[name])
	}
	return most
}
