// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestForwarded: a namespace that passes packets on received them, and where that is not known
// nothing is proven either.
func TestForwarded(t *testing.T) {
	host := evidence.Forwarded{NetNS: 4026531840, Own: true, Packets: 88}
	router := evidence.Forwarded{NetNS: 4026532001, Enter: evidence.Enter{Name: "router"},
		Packets: 1200}
	dnat := evidence.Diversion{By: "dnat rule in table ip n, chain p", NetNS: host.NetNS,
		Own: true, From: netip.AddrPortFrom(netip.Addr{},
			80), To: netip.MustParseAddrPort("10.9.0.77:80")}
	for name, test := range map[string]struct {
		set        func(*evidence.Evidence)
		confidence event.Confidence
		says       string
	}{
		"nothing": {func(*evidence.Evidence) {}, event.ConfidenceProven, "before it"},
		"unread": {func(e *evidence.Evidence) {
			e.Missing = []evidence.Gap{{Need: evidence.NeedForwarded,
				Why: "not permitted"}}
		}, event.ConfidenceLikely, "before it"},
		"the host": {func(e *evidence.Evidence) {
			e.Forwarded = []evidence.Forwarded{host}
		}, event.ConfidencePossible, "this host forwarded 88 packets meanwhile"},
		"a router": {func(e *evidence.Evidence) {
			e.Forwarded = []evidence.Forwarded{host,
				router}
		}, event.ConfidencePossible, "network namespace router forwarded 1,200 packets"},
		"a rule": {func(e *evidence.Evidence) {
			e.Forwarded, e.Diversions = []evidence.Forwarded{host},
				[]evidence.Diversion{dnat}
		}, event.ConfidencePossible,
			"SYNs to port 80 are sent to 10.9.0.77:80 (dnat rule in table ip n, chain p"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &evidence.Evidence{WindowMs: 10_000, Filter: "--port 80",
				Ports: []uint16{80}}
			test.set(e)
			d := Diagnose(e)
			f := d.Findings[0]
			complete(t, f)
			if f.ID != event.FindingNoSynArrived || f.Confidence != test.confidence ||
				!strings.Contains(d.Verdict, test.says) {
				t.Errorf("%s, %s: %s", f.ID, f.Confidence, d.Verdict)
			}
			if len(e.Forwarded) > 0 && (strings.Contains(d.Verdict, "before it") ||
				strings.Contains(d.Verdict, "IP stack")) {
				t.Errorf("it sends away: %s", d.Verdict)
			}
		})
	}
}

// TestBeforeOneNetNS: what did not come to the only namespace asked about may have died in another
// one on this host, or been sent elsewhere there: those that died are named, and nothing is proven
// where others passed packets on or nobody looked.
func TestBeforeOneNetNS(t *testing.T) {
	host := evidence.Forwarded{NetNS: 4026531840, Own: true, Before: true, Packets: 88}
	syn := evidence.Stray{Syn: true,
		Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"),
			Port: 80}, NetNS: host.NetNS, Own: true, Count: 6,
		Kernel: event.Kernel{Function: "nf_hook_slow", Reason: "NETFILTER_DROP",
			Hook: "forward"}}
	elsewhere := syn
	elsewhere.Own, elsewhere.Enter, elsewhere.Kernel = false, evidence.Enter{Name: "router"},
		event.Kernel{Function: "ip_error"}
	sniffed := syn
	sniffed.Kernel = event.Kernel{Function: "packet_rcv"}
	for name, test := range map[string]struct {
		set        func(*evidence.Evidence)
		confidence event.Confidence
		severity   event.Severity
		says       string
		not        string
	}{
		"nothing": {func(*evidence.Evidence) {}, event.ConfidenceProven,
			event.SeverityNote, "of this network namespace", "meanwhile"},
		"not watched": {func(e *evidence.Evidence) { e.StraysMs = nil },
			event.ConfidenceLikely, event.SeverityNote, "of this network namespace",
			"meanwhile"},
		"not all watched": {func(e *evidence.Evidence) {
			e.Missing = []evidence.Gap{{Need: evidence.NeedForwarded,
				Why: "it has more than 16 addresses"}}
		},
			event.ConfidenceLikely, event.SeverityNote, "of this network namespace",
			"meanwhile"},
		"the host forwarded": {func(e *evidence.Evidence) {
			e.Forwarded = []evidence.Forwarded{host}
		}, event.ConfidenceLikely, event.SeverityNote,
			"this host forwarded 88 packets meanwhile, and may have sent",
			"reached a listener"},
		"the host's IPVS": {func(e *evidence.Evidence) {
			e.Forwarded = []evidence.Forwarded{{NetNS: host.NetNS, Own: true,
				Before: true, IPVS: 5}}
		}, event.ConfidenceLikely, event.SeverityNote, "IPVS of this host took 5 packets meanwhile", "forwarded"},
		"its own IPVS": {func(e *evidence.Evidence) {
			e.Forwarded = []evidence.Forwarded{{NetNS: 4026532001,
				Enter: evidence.Enter{Name: "web"}, IPVS: 5}}
		},
			event.ConfidencePossible, event.SeverityNote,
			"IPVS of network namespace web took 5 packets meanwhile",
			"IP stack"},
		"died on the host": {func(e *evidence.Evidence) {
			e.Forwarded,
				e.Strays = []evidence.Forwarded{host}, []evidence.Stray{syn}
		}, event.ConfidenceLikely, event.SeverityCause,
			"6 SYNs to 10.0.0.2:80 were dropped before it, by netfilter at forward on this host", "forwarded"},
		"died in a router": {func(e *evidence.Evidence) {
			e.Strays = []evidence.Stray{elsewhere}
		}, event.ConfidenceLikely, event.SeverityCause,
			"were dropped before it, by a route that refuses or discards it, or for want of one in network namespace router", "netfilter"},
		"copied": {func(e *evidence.Evidence) { e.Strays = []evidence.Stray{sniffed} },
			event.ConfidenceProven, event.SeverityNote, "of this network namespace",
			"dropped before"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &evidence.Evidence{WindowMs: 10_000, Filter: "--netns web --port 80",
				OneNetNS: true, Ports: []uint16{80}, StraysMs: ptr(uint64(9000))}
			test.set(e)
			d := Diagnose(e)
			f := d.Findings[0]
			complete(t, f)
			if f.ID != event.FindingNoSynArrived || f.Confidence != test.confidence ||
				f.Severity != test.severity ||
				!strings.Contains(d.Verdict, test.says) ||
				strings.Contains(d.Verdict, test.not) {
				t.Errorf("%s, %s, %s: %s", f.ID, f.Confidence, f.Severity,
					d.Verdict)
			}
		})
	}
}
