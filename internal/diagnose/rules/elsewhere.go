// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// beforeListener explains SYNs that died before any listener, one finding a cause.
func beforeListener(e *evidence.Evidence) []*Found {
	var out []*Found
	about, _ := event.FindingOf(event.FindingDroppedBeforeListener)
	for _, cause := range about.Causes {
		told, n := byReason(e, event.FindingDroppedBeforeListener, cause,
			evidence.Died(e.Counts, cause, event.StageIngress))
		out = append(out, told...)
		if cause == event.CauseNetfilter {
			out = append(out, firewall(e, n)...)
			continue
		}
		out = append(out, bySpace(e, cause, n)...)
	}
	return out
}

// sawDeaths cites where in the kernel packets died before any listener, and what it gave as the
// reason.
func (f *Found) sawDeaths(deaths []evidence.Death) {
	told := map[string]bool{}
	for _, d := range deaths {
		for _, at := range []struct{ what, value string }{{"kernel function",
			d.Kernel.Function}, {"netfilter hook", d.Kernel.Hook}, {"kernel reason", d.Kernel.Reason}} {
			if at.value != "" && !told[at.what+at.value] {
				told[at.what+at.value] = true
				f.saw(at.what, at.value, "")
			}
		}
	}
}

func noListener(e *evidence.Evidence) []*Found {
	n := evidence.ClosedPorts(e)
	if n == 0 {
		return nil
	}
	f := newFound(event.FindingNoListener, n)
	f.Confidence = event.ConfidenceProven
	f.saw("SYNs reset because nothing listens there", n, "packets")
	deaths := slices.DeleteFunc(slices.Clone(e.Ingress),
		func(d evidence.Death) bool { return d.Cause != event.CauseNoListener })
	slices.SortStableFunc(deaths, func(a, b evidence.Death) int {
		return cmp.Compare(b.Count,
			a.Count)
	})
	place := "the port"
	for i, d := range evidence.Bound(deaths, 5) {
		to := evidence.Where(event.Listener{Addr: d.Server.Addr, Port: d.Server.Port}) +
			d.InSpace()
		f.saw("SYNs to "+to, d.Count, "packets")
		if i == 0 {
			place = to
		}
	}
	f.Because = "nothing listens on " + place
	f.Title = f.Because
	for _, d := range evidence.Bound(deaths, 1) {
		f.sawPlace(&d)
	}
	if !f.passedBy(e, deaths) {
		for _, d := range evidence.Bound(deaths, 1) {
			if d.Own || d.Enter.Command() != "" {
				f.fix(fmt.Sprintf("look at what listens there: %sss -Hltn sport = :%d", d.Enter.Command(), d.Server.Port))
			}
		}
		f.fix("start the service, or correct the port that clients use (behind DNAT it is the pod's)",
			"check the network namespace: a container's listener is not the host's")
	}
	if len(deaths) > 0 {
		if doubts := elsewhereToo(e, deaths[0].NetNS); len(doubts) > 0 {
			f.Confidence = event.ConfidenceLikely
			f.Evidence = append(f.Evidence, doubts...)
		}
	}
	if len(e.Ports) == 0 { // whatever scans a host ends here too
		f.Weight = 0
		f.Confidence = event.ConfidencePossible
		f.Settles = "a filter: synspy diagnose --port PORT says whether these SYNs are the ones in question"
	}
	if evidence.StraySYNs(e) {
		f.Severity = event.SeverityNote
	}
	if ports := evidence.RefusedPorts(e); evidence.Scanned(e) {
		f.saw("closed ports that one client tried", ports, "ports")
		f.Because = fmt.Sprintf(
			"one client tried %d ports where nothing listens, as a scan does", ports)
		f.Title = f.Because
	}
	return []*Found{f}
}

func listenerRestarted(e *evidence.Evidence) []*Found {
	var out []*Found
	for i := range e.Listeners {
		l := &e.Listeners[i]
		n := l.Dropped(event.CauseListenerClosed)
		var refused uint64
		if l.ReplacedBy == nil {
			refused = refusedAt(e, l)
		}
		if n+refused == 0 {
			continue
		}
		f := newFound(event.FindingListenerRestarted, n+refused).about(l, l.Processes)
		f.Confidence = event.ConfidenceProven
		f.saw("handshakes and waiting connections that died with the listener", n,
			"packets")
		if refused > 0 {
			f.saw("SYNs reset because nothing listened there", refused, "packets")
		}
		sawKnown(f, "closed, since the window began", l.ClosedMs, "ms")
		f.Because = "the listener on " + evidence.Where(l.ID) + " was closed"
		switch {
		case l.ReplacedBy != nil:
			f.saw("replaced by a socket on", evidence.Where(*l.ReplacedBy), "")
			f.Because += " and replaced"
		case l.ClosedMs != nil:
			f.Because += " and not replaced"
		}
		f.Because += " while clients were connecting"
		f.Title = f.Because
		if l.ReplacedBy == nil {
			f.fix("start the service again, and find out why it ended or closed its listener: its log, the kernel's (out of memory), its unit or pod")
		}
		f.fix("hand the socket over on restart (socket activation, or SO_REUSEPORT with net.ipv4.tcp_migrate_req=1) instead of closing it",
			"take the instance out of the load balancer before it stops, and accept what waits before closing")
		out = append(out, f)
	}
	return out
}

// refusedAt is how many SYNs were reset that were sent to where a listener was that closed.
func refusedAt(e *evidence.Evidence, l *evidence.Listener) uint64 {
	if l.ClosedMs == nil {
		return 0
	}
	var n uint64
	for _, d := range e.Ingress {
		if d.Cause != event.CauseNoListener || d.Server.Port != l.ID.Port ||
			d.NetNS != l.ID.NetNS {
			continue
		}
		if addr := l.ID.Addr.Unmap(); addr.IsUnspecified() ||
			addr == d.Server.Addr.Unmap() {
			n += d.Count
		}
	}
	return n
}

// consequences are causes of packets that die after an overflow, or in a flood: an ACK for a
// handshake that is gone, or a cookie that is too old.
var consequences = []event.Cause{event.CauseBadHandshakeAck, event.CauseCookieInvalid}

// explainedElsewhere reports whether another rule tells of a cause.
func explainedElsewhere(c event.Cause) bool {
	return slices.ContainsFunc(event.Findings(), func(f event.FindingInfo) bool {
		return f.ID != event.FindingOtherDrops && slices.Contains(f.Causes, c)
	})
}

// smallPart is the part of all drops below which deaths of other kinds are stray packets.
const smallPart = 0.05

// otherDrops names what died of anything that no other rule tells of.
func otherDrops(e *evidence.Evidence) []*Found {
	pressure := evidence.Died(e.Counts, event.CauseAcceptQueueFull, event.StageUnknown) > 0
	for i := range e.Listeners {
		pressure = pressure || evidence.Value(e.Listeners[i].Cookies) > 0 ||
			synQueueDrops(&e.Listeners[i]) > 0
	}
	var out []*Found
	for _, info := range event.Causes() {
		n := evidence.Died(e.Counts, info.Cause, event.StageUnknown)
		if explainedElsewhere(info.Cause) {
			n = unclaimed(e, info.Cause)
		}
		var harmed uint64
		switch info.Cause {
		case event.CauseBadHandshakeAck: // clientsEnded tells of the clients' own
			n, harmed = n-min(n, evidence.EndedByClients(e)), evidence.Spoiled(e)
		case event.CauseCookieInvalid:
			harmed = evidence.SpoiltCookies(e)
		default:
			var told []*Found
			told, n = byReason(e, event.FindingOtherDrops, info.Cause, n)
			for _, f := range told {
				out = append(out, weighed(e, f, info.Cause, pressure, f.Weight,
					f.Weight))
			}
			harmed = n
		}
		if n == 0 {
			continue
		}
		f := newFound(event.FindingOtherDrops, harmed)
		f.Confidence = event.ConfidenceProven
		f.Owner = info.Owner
		f.saw("cause", info.Name, "")
		f.saw("packets", n, "packets")
		f.Title = info.Title
		f.Because = info.Explain
		f.fix(info.Fix)
		if info.Cause == event.CauseKernelOther {
			f.Confidence = event.ConfidencePossible
			f.Settles = "the kernel function that each record names"
			f.sawDeaths(withoutFinding(e, info.Cause))
			f.takenBefore(e, n)
		}
		f.sawReasons(e, info.Cause)
		if info.Cause == event.CauseICMPError && e.OwnErrors() {
			f.Severity = event.SeverityContributing
			f.Title = "ICMP errors about SYN-ACKs come from this host itself, whose next hop does not answer"
			f.Because, f.Fix = f.Title, nil
			f.fix("make the next hop answer: see the other finding")
		}
		out = append(out, weighed(e, f, info.Cause, pressure, n, harmed))
	}
	return append(out, unattributed(e)...)
}

// weighed says whose a finding about n other drops is, and how much it counts: by how many
// handshakes may have failed by it.
func weighed(e *evidence.Evidence, f *Found, cause event.Cause, pressure bool, n,
	harmed uint64) *Found {
	for i := range e.Listeners {
		if l := &e.Listeners[i]; l.Dropped(cause) == n {
			f.about(l, l.Processes)
		}
	}
	if pressure && slices.Contains(consequences, cause) {
		f.Severity = event.SeverityContributing
		f.Because += "; it follows from the full queue"
	}
	if harmed < n {
		f.saw("handshakes that may have failed by it", harmed, "handshakes")
	}
	switch {
	case harmed == 0:
		f.Severity = event.SeverityNote
		f.Because = fmt.Sprintf("%s fitted no handshake that failed: duplicates, scans, or connections that this host does not know any more", advice.Many(n, "packet"))
	case float64(harmed) < smallPart*float64(evidence.DiedOfAll(e.Counts)):
		f.Severity = event.SeverityNote
	}
	return f
}

// unclaimed is how many packets died of a listener's cause without a listener in the evidence to
// blame.
func unclaimed(e *evidence.Evidence, cause event.Cause) uint64 {
	if slices.Contains(cause.Info().Stages, event.StageIngress) {
		return 0
	}
	n := evidence.Died(e.Counts, cause, event.StageUnknown)
	for i := range e.Listeners {
		n -= min(n, e.Listeners[i].Dropped(cause))
	}
	return n
}

// unattributed says that the kernel counted what no packet was seen for.
func unattributed(e *evidence.Evidence) []*Found {
	var out []*Found
	for _, row := range e.Ledger {
		if row.Unattributed == 0 && row.Balanced() ||
			row.Others && e.Overflow.Hides() { // overflow tells of those
			continue
		}
		f := newFound(event.FindingOtherDrops,
			^uint64(0)) // before health, which it puts in doubt
		f.Severity = event.SeverityNote
		f.Confidence = event.ConfidencePossible
		f.Doubt = true
		f.Because = fmt.Sprintf("the kernel counted %s of %s%s, and packets that explain %s of it were seen",
			evidence.Thousands(row.Kernel), row.Counter, rowSpace(&row), evidence.Thousands(row.Synspy))
		f.Title = row.Counter + " moved by more than the packets seen"
		if row.Kernel < row.Synspy {
			f.Title = row.Counter + " moved by less than the packets seen"
		}
		f.saw(row.Counter, row.Kernel, "packets")
		f.saw("of it seen as packets", row.Synspy, "packets")
		f.saw("network namespace", evidence.Enter{Name: row.Name}.Called(row.NetNS), "")
		f.fix("run synspy trace with another --backend: synspy check lists what this one does not see")
		out = append(out, f)
	}
	return out
}

// withoutFinding lists the deaths of a cause before any listener of which no reason tells more.
func withoutFinding(e *evidence.Evidence, cause event.Cause) []evidence.Death {
	return slices.DeleteFunc(slices.Clone(e.Ingress), func(d evidence.Death) bool {
		_, told := d.Reason(e)
		return told || d.Cause != cause
	})
}

// diedThere is the finding of n packets that died of a cause in one namespace; deaths are what is
// known of them.
func diedThere(cause event.Cause, n uint64, deaths []evidence.Death) *Found {
	info := cause.Info()
	f := newFound(event.FindingDroppedBeforeListener, n)
	f.Confidence = event.ConfidenceProven
	f.Owner = info.Owner
	f.saw("SYNs that died before any listener", n, "packets")
	f.saw("cause", info.Name, "")
	f.Title = "SYNs die before the listener: " + info.Title
	f.Because = info.Explain
	if len(deaths) > 0 {
		f.sawPlace(&deaths[0])
	}
	for _, d := range evidence.Bound(deaths, evidence.MaxPlaces) {
		if d.Server.Addr.IsValid() {
			f.saw("SYNs to "+evidence.Where(event.Listener{Addr: d.Server.Addr,
				Port: d.Server.Port}), d.Count, "packets")
		}
	}
	f.sawDeaths(deaths)
	f.fix(info.Fix)
	return f
}

// bySpace makes findings of the n packets that died of a cause of which no more is told: one for
// each network namespace.
func bySpace(e *evidence.Evidence, cause event.Cause, n uint64) (out []*Found) {
	var order []uint64
	deaths := make(map[uint64][]evidence.Death)
	for _, d := range withoutFinding(e, cause) {
		if d.NetNS == 0 { // the rate limit held those back
			continue
		}
		if deaths[d.NetNS] == nil {
			order = append(order, d.NetNS)
		}
		deaths[d.NetNS] = append(deaths[d.NetNS], d)
	}
	for _, netns := range order {
		var of uint64
		for _, d := range deaths[netns] {
			of += d.Count
		}
		if of = min(of, n); len(order) == 1 {
			of = n
		}
		if of > 0 {
			out = append(out, diedThere(cause, of, deaths[netns]))
		}
		n -= of
	}
	if n > 0 {
		out = append(out, diedThere(cause, n, nil))
	}
	return out
}
