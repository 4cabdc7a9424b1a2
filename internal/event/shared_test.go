// SPDX-License-Identifier: Apache-2.0

package event

import (
	"maps"
	"slices"
	"testing"
)

func TestExplainShared(t *testing.T) {
	type counts map[Outcome]uint64
	type values map[string]uint64
	for _, c := range []struct {
		name    string
		counted counts
		moved   values
		want    values
	}{
		{"nothing", nil, values{"IPReversePathFilter": 4}, nil},
		{"one set", counts{OutcomeIngressRPFilter: 7}, values{"IPReversePathFilter": 9},
			values{"IPReversePathFilter": 7}},
		// Not hidden: the mapping would be wrong.
		{"more than moved", counts{OutcomeIngressRPFilter: 7},
			values{"IPReversePathFilter": 5}, values{"IPReversePathFilter": 7}},
		{"TCP checksums alone", counts{OutcomeIngressChecksum: 3},
			values{"TcpInCsumErrors": 8, "IpExtInCsumErrors": 0, "IpInHdrErrors": 5},
			values{"TcpInCsumErrors": 3}},
		{"IP checksums alone", counts{OutcomeIngressChecksum: 3},
			values{"TcpInCsumErrors": 0, "IpExtInCsumErrors": 3, "IpInHdrErrors": 4},
			values{"IpExtInCsumErrors": 3, "IpInHdrErrors": 3}},
		{"both, and nothing else", counts{OutcomeIngressChecksum: 3},
			values{"TcpInCsumErrors": 2, "IpExtInCsumErrors": 1, "IpInHdrErrors": 1},
			values{"TcpInCsumErrors": 2, "IpExtInCsumErrors": 1, "IpInHdrErrors": 1}},
		{"both, and other traffic", counts{OutcomeIngressChecksum: 5},
			values{"TcpInCsumErrors": 4, "IpExtInCsumErrors": 3, "IpInHdrErrors": 9},
			values{"TcpInCsumErrors": 2, "IpExtInCsumErrors": 1, "IpInHdrErrors": 1}},
		{"either could be all", counts{OutcomeIngressChecksum: 5},
			values{"TcpInCsumErrors": 5, "IpExtInCsumErrors": 5, "IpInHdrErrors": 5},
			nil},
		{"branches of a cause", counts{OutcomeSynNoRouteBack: 1, OutcomeAckNoRouteBack: 2,
			OutcomeAckNoRouteBackReset: 4},
			values{"IpOutNoRoutes": 7, "Ip6OutNoRoutes": 0},
			values{"IpOutNoRoutes": 7}},
		{"a kernel without IPv6", counts{OutcomeSynNoRouteBack: 2},
			values{"IpOutNoRoutes": 2}, values{"IpOutNoRoutes": 2}},
		{"signatures: which one is not known", counts{OutcomeSynAuthFailed: 6},
			values{"TCPMD5NotFound": 6}, nil},
		{"and the like", counts{OutcomeIngressPolicy: 2, OutcomeAckBadQuiet: 3,
			OutcomeIngressTimeWait: 4},
			values{"TCPMinTTLDrop": 2, "PAWSEstab": 7, "TSEcrRejected": 0}, nil},
		{"TIME_WAIT by timestamp",
			counts{OutcomeIngressTimeWaitPAWS: 4, OutcomeIngressTimeWait: 2},
			values{"PAWSTimewait": 4, "PAWSEstab": 1},
			values{"PAWSTimewait": 4}},
		{"a SYN on a connection", counts{OutcomeIngressOtherConnection: 3},
			values{"TCPSYNChallenge": 5}, values{"TCPSYNChallenge": 3}},
		{"the closed list is not shared", counts{OutcomeSynAcceptQueueFull: 9},
			values{"ListenDrops": 9}, nil},
		{"several at once", counts{OutcomeIngressRPFilter: 1, OutcomeIngressChecksum: 1},
			values{"IPReversePathFilter": 1, "TcpInCsumErrors": 1},
			values{"IPReversePathFilter": 1, "TcpInCsumErrors": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var counted [NumOutcomes]uint64
			for o, n := range c.counted {
				counted[o] = n
			}
			if got := ExplainShared(counted, c.moved); !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestSharedTable holds the table to the meanings, and to one row per outcome.
func TestSharedTable(t *testing.T) {
	seen := make(map[Outcome]bool)
	for _, s := range shared {
		for _, o := range s.outcomes {
			if seen[o] {
				t.Errorf("outcome %d is there twice: what it moved would count double", o)
			}
			seen[o] = true
		}
		for _, set := range s.sets {
			for _, name := range set {
				if m, ok := meaningOf(name); !ok || !m.Shared {
					t.Errorf("%s is no shared counter", name)
				}
			}
		}
	}
	want := []string{"IpExtInCsumErrors", "IpInHdrErrors", "TcpInCsumErrors"}
	if got := CauseChecksum.SharedCounters(); !slices.Equal(got, want) {
		t.Errorf("checksum moves %v, want %v", got, want)
	}
	if got := CauseAcceptQueueFull.SharedCounters(); len(got) > 0 {
		t.Errorf("accept_queue_full moves %v", got)
	}
}

func TestUnchecked(t *testing.T) {
	for _, c := range []struct {
		count Count
		want  uint64
	}{
		{Count{CauseAcceptQueueFull, StageSyn, ActionDropped, 7}, 0},
		{Count{CauseRPFilter, StageIngress, ActionDropped, 7}, 0},  // IPReversePathFilter
		{Count{CauseNetfilter, StageIngress, ActionDropped, 7}, 7}, // nothing counts it
		{Count{CauseNetfilter, StageIngress, ActionReset, 7}, 7},
		{Count{CauseNoListener, StageIngress, ActionReset, 7}, 7},
		{Count{CausePolicy, StageIngress, ActionDropped, 7}, 7}, // only one of its branches
		{Count{CauseHandshakeExpired, StageTimer, ActionDropped, 7}, 7},
		{Count{CauseDeferAccept, StageAck, ActionIgnored, 7}, 0},
	} {
		if got := Unchecked([]Count{c.count}); got != c.want {
			t.Errorf("%v at %v: %d unchecked, want %d", c.count.Cause, c.count.Stage,
				got, c.want)
		}
	}
}
