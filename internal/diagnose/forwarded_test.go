package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestForwarded: a namespace that passes packets on received them, and where that is not known nothing is proven either.
func TestForwarded(t *testing.T) {
	host := Forwarded{NetNS: 4026531840, Own: true, Packets: 88}
	router := Forwarded{NetNS: 4026532001, Enter: Enter{Name: "router"}, Packets: 1200}
	dnat := Diversion{By: "dnat rule in table ip n, chain p", NetNS: host.NetNS, Own: true, From: netip.AddrPortFrom(netip.Addr{}, 80), To: netip.MustParseAddrPort("10.9.0.77:80")}
	for name, test := range map[string]struct {
		set        func(*Evidence)
		confidence event.Confidence
		says       string
	}{
		"nothing":  {func(*Evidence) {}, event.ConfidenceProven, "before it"},
		"unread":   {func(e *Evidence) { e.Missing = []Gap{{Need: NeedForwarded, Why: "not permitted"}} }, event.ConfidenceLikely, "before it"},
		"the host": {func(e *Evidence) { e.Forwarded = []Forwarded{host} }, event.ConfidencePossible, "this host forwarded 88 packets meanwhile"},
		"a router": {func(e *Evidence) { e.Forwarded = []Forwarded{host, router} }, event.ConfidencePossible, "network namespace router forwarded 1,200 packets"},
		"a rule": {func(e *Evidence) { e.Forwarded, e.Diversions = []Forwarded{host}, []Diversion{dnat} }, event.ConfidencePossible,
			"SYNs to port 80 are sent to 10.9.0.77:80 (dnat rule in table ip n, chain p"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &Evidence{WindowMs: 10_000, Filter: "--port 80", Ports: []uint16{80}}
			test.set(e)
			d := Diagnose(e)
			f := d.Findings[0]
			complete(t, f)
			if f.ID != event.FindingNoSynArrived || f.Confidence != test.confidence || !strings.Contains(d.Verdict, test.says) {
				t.Errorf("%s, %s: %s", f.ID, f.Confidence, d.Verdict)
			}
			if len(e.Forwarded) > 0 && (strings.Contains(d.Verdict, "before it") || strings.Contains(d.Verdict, "IP stack")) {
				t.Errorf("it sends away: %s", d.Verdict)
			}
		})
	}
}
