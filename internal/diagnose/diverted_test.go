// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestSentElsewhere: where SYNs for the port asked about may have been sent elsewhere, that none
// was seen is not proven, nobody is sent upstream, and what may have sent them is said.
func TestSentElsewhere(t *testing.T) {
	const here, there = 4026532001, 4026532002
	other := evidence.Other{Listener: event.Listener{Addr: netip.MustParseAddr("0.0.0.0"),
		Port: 8080, NetNS: here}, Enter: evidence.Enter{Name: "web"},
		Processes: []event.Process{{PID: 812, Comm: "nginx"}}, Drops: ptr(uint64(40))}
	for name, test := range map[string]struct {
		set  func(*evidence.Evidence)
		says string // empty: it is proven
	}{
		"nothing": {func(*evidence.Evidence) {}, ""},
		"another port": {func(e *evidence.Evidence) { e.Others = []evidence.Other{other} },
			"0.0.0.0:8080 of nginx (pid 812) in network namespace web"},
		"a program": {func(e *evidence.Evidence) {
			e.Doubts = []evidence.Doubt{{NetNS: here,
				Enter: evidence.Enter{Name: "web"}, Why: "the sk_lookup program steer"}}
		}, "steer in network namespace web"},
		"a counter alone": {func(e *evidence.Evidence) {
			e.Ledger = []event.LedgerRow{{NetNS: here, Counter: "ListenDrops",
				Kernel: 4, Synspy: 4, Filtered: 4}}
		}, "ListenDrops"},
	} {
		t.Run(name, func(t *testing.T) {
			quiet := &evidence.Evidence{WindowMs: 10_000, Filter: "--port 80",
				Ports: []uint16{80}}
			test.set(quiet)
			d := Diagnose(quiet)
			f := d.Findings[0]
			doubted := f.Confidence != event.ConfidenceProven
			if f.ID != event.FindingNoSynArrived || doubted != (test.says != "") ||
				!strings.Contains(d.Verdict, test.says) {
				t.Errorf("%s, %s: %s", f.ID, f.Confidence, d.Verdict)
			}
			if doubted && (len(f.Title) > 120 || strings.Contains(d.Verdict,
				"drops counted") &&
				!strings.Contains(d.Verdict, "while synspy ran")) {
				t.Errorf("%q, which is cut, or a count of no known time: %s",
					f.Title, d.Verdict)
			}
			if fix := strings.Join(f.Fix, "; "); doubted && (strings.Contains(fix,
				"upstream") || strings.Contains(d.Verdict, "before it")) {
				t.Errorf("it says to look elsewhere: %s: %s", d.Verdict, fix)
			}
			for _, netns := range []uint64{here, there} {
				refused := ingress(event.CauseNoListener, event.ActionReset, 12,
					[]uint16{443})
				refused.Elsewhere, refused.Ingress[0].NetNS = nil, netns
				test.set(refused)
				f := Diagnose(refused).Findings[0]
				if proven := f.Confidence == event.ConfidenceProven; proven != (test.says == "" || netns == there) {
					t.Errorf("nothing listens in %d: %s", netns, f.Confidence)
				}
			}
		})
	}
}

// TestRoutes: how SYNs for the port asked about come to the listener that is in trouble is said,
// what is proven first.
func TestRoutes(t *testing.T) {
	e := evidenceOf(died1(healthyListener(), event.CauseAcceptQueueFull, event.StageSyn,
		event.ActionDropped, 40))
	l := e.Listeners[0].ID
	e.Ports = []uint16{80}
	asked := netip.MustParseAddrPort("10.0.0.1:80")
	e.Diversions = []evidence.Diversion{
		{By: "redirect rule in table ip nat, chain PREROUTING", NetNS: l.NetNS,
			From: netip.AddrPortFrom(netip.Addr{},
				80), To: netip.AddrPortFrom(netip.Addr{}, l.Port)},
		{By: "connection tracking", NetNS: l.NetNS, From: asked,
			To: netip.AddrPortFrom(l.Addr, l.Port), Connections: 3, Proven: true},
		{By: "another port's", NetNS: l.NetNS, From: asked,
			To: netip.AddrPortFrom(netip.Addr{}, l.Port+1)},
		{By: "another namespace's", NetNS: l.NetNS + 1, From: asked,
			To: netip.AddrPortFrom(netip.Addr{}, l.Port)},
	}
	d := Diagnose(e)
	if !strings.Contains(d.Verdict, "SYNs to 10.0.0.1:80 are sent there (connection tracking") {
		t.Error(d.Verdict)
	}
	var told []string
	for _, seen := range d.Findings[0].Evidence {
		if strings.Contains(seen.What, "are sent to it") {
			told = append(told, seen.Value.(string))
		}
	}
	if len(told) != 2 || !strings.Contains(told[0], "whose SYNs died") ||
		!strings.Contains(told[1], "inferred from the rule") {
		t.Errorf("told %q", told)
	}
}
