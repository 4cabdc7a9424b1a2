// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// elsewhereToo lists what makes it uncertain that SYNs for the ports asked about, in a namespace
// (0: any), were looked for where they went. Places that SYNs are known to be sent to are looked
// at.
func elsewhereToo(e *evidence.Evidence, netns uint64) (list []event.Evidence) {
	in := func(at uint64) bool { return netns == 0 || at == 0 || at == netns }
	if len(e.Ports) == 0 && !e.Narrowed {
		return nil // everything was looked at
	}
	for i := range e.Others {
		if o := &e.Others[i]; in(o.Listener.NetNS) && len(list) < maxElsewhere {
			list = append(list, says(o))
		}
	}
	for _, d := range evidence.Bound(e.Doubts, maxElsewhere) {
		if in(d.NetNS) {
			list = append(list, advice.Seen("what may send SYNs elsewhere",
				d.Why+d.Enter.InSpace(d.NetNS, d.Own), ""))
		}
	}
	for _, row := range e.Ledger {
		if row.Filtered > 0 && !row.Shared && in(row.NetNS) && len(e.Others) == 0 &&
			row.Counter == event.CounterListenDrops.String() {
			list = append(list,
				advice.Seen(row.Counter+" that the filters kept out"+rowSpace(&row),
					row.Filtered, "packets"))
		}
	}
	return list
}

func rowSpace(r *event.LedgerRow) string {
	return evidence.Enter{Name: r.Name}.InSpace(r.NetNS, false)
}

// says names the listener and what it dropped.
func says(o *evidence.Other) event.Evidence {
	name := evidence.Where(o.Listener) + o.Enter.InSpace(o.Listener.NetNS, o.Own)
	if len(o.Processes) > 0 {
		name = evidence.Where(o.Listener) + " of " + advice.Who(o.Processes[0]) +
			o.Enter.InSpace(o.Listener.NetNS, o.Own)
	}
	if evidence.Value(o.Drops) > 0 {
		return advice.Seen("drops counted, while synspy ran, by a listener on another port, "+name, *o.Drops, "packets")
	}
	return advice.Seen("a listener on another port whose queue is full", name, "")
}

// routes lists the diversions that send to a listener.
func routes(e *evidence.Evidence, l *event.Listener) (list []evidence.Diversion) {
	for _, d := range e.Diversions {
		addr := l.Addr.Unmap()
		if d.To.Port() == l.Port && (d.To.Addr().IsValid() || d.NetNS == l.NetNS) &&
			(!d.To.Addr().IsValid() || addr.IsUnspecified() ||
				addr == d.To.Addr().Unmap()) {
			list = append(list, d)
		}
	}
	slices.SortStableFunc(list, func(a, b evidence.Diversion) int { return rank(b) - rank(a) })
	return list
}

// rank puts what is proven first, then what was seen.
func rank(d evidence.Diversion) int {
	switch {
	case d.Proven:
		return 2
	case d.Connections > 0:
		return 1
	}
	return 0
}

// sawRoutes cites how SYNs for the ports asked about come to the listener of a finding.
func (f *Found) sawRoutes(e *evidence.Evidence) {
	if f.Listener == nil || f.ID == event.FindingNoListener {
		return
	}
	for _, d := range evidence.Bound(routes(e, f.Listener), maxElsewhere) {
		f.saw("SYNs to "+from(&d)+" are sent to it", How(&d), "")
	}
}

// Route ends a verdict with the same, for a listener of a port that was not asked about.
func (f *Found) Route(e *evidence.Evidence) string {
	if f.Listener == nil || f.ID == event.FindingNoListener || slices.Contains(e.Ports,
		f.Listener.Port) {
		return ""
	}
	list := routes(e, f.Listener)
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprintf(" SYNs to %s are sent there (%s).", from(&list[0]), How(&list[0]))
}

func from(d *evidence.Diversion) string { return whereTo(d.From) }

func whereTo(at netip.AddrPort) string {
	if !at.Addr().IsValid() {
		return "port " + strconv.Itoa(int(at.Port()))
	}
	return at.String()
}

// How says what tells of a diversion, and how sure that is.
func How(d *evidence.Diversion) string {
	at := evidence.Said(d.By) + d.Enter.InSpace(d.NetNS, d.Own)
	switch {
	case d.Proven:
		return at + ", shown by clients whose SYNs died"
	case d.Connections > 0:
		return fmt.Sprintf("%s, of %s", at, advice.Many(d.Connections, "connection"))
	case d.By == "connection tracking":
		return at + ", of connections before the window"
	}
	return at + ", inferred from the rule"
}
