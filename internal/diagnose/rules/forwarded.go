// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// sawForwarded takes back that no SYN came to the IP stack where it passed packets on, or that is
// not known: it received these, SYNs to addresses that are not its own may be among them, and they
// come to no listener.
func (f *Found) sawForwarded(e *evidence.Evidence) {
	here := slices.DeleteFunc(slices.Clone(e.Forwarded),
		func(at evidence.Forwarded) bool { return at.Before })
	if len(here) == 0 {
		f.sawBefore(e)
		if e.Lacks(evidence.NeedForwarded) && f.Confidence == event.ConfidenceProven {
			f.Confidence = event.ConfidenceLikely
			f.Settles = "nstat -az IpForwDatagrams Ip6OutForwDatagrams, twice, while clients time out: if it grows, SYNs may be passed on"
		}
		return
	}
	slices.SortStableFunc(here,
		func(a, b evidence.Forwarded) int {
			return cmp.Compare(b.Packets+b.IPVS,
				a.Packets+a.IPVS)
		})
	f.Doubt, f.Confidence = true, event.ConfidencePossible
	f.Because = "no SYN reached a listener"
	if e.Filter != "" {
		f.Because += " for " + e.Filter
	}
	first := &here[0]
	if list := away(e); len(list) > 0 {
		f.Because += ", SYNs to " + from(&list[0]) + " are sent to " + whereTo(list[0].To) +
			" (" + How(&list[0]) + ")"
	}
	f.Because += ", and " + did(first) +
		" meanwhile: SYNs to an address that is not its own are passed on"
	if first.IPVS > 0 {
		f.Because += ", and those to a service of IPVS to its servers"
	}
	for _, d := range evidence.Bound(away(e), maxElsewhere) {
		f.saw("SYNs to "+from(&d)+" are sent to "+whereTo(d.To), How(&d), "")
	}
	f.sawPassed(here)
	f.fix("is the address that clients connect to one of this host's: "+first.Enter.Command()+"ip -br address; if not, and it is to be, add it (a load balancer's VIP)",
		"does a DNAT rule, IPVS or a route send the port away: "+first.Enter.Command()+"nft list ruleset; "+first.Enter.Command()+"ipvsadm -Ln; "+
			first.Enter.Command()+"conntrack -L")
	f.Settles = "tcpdump on the port, on all devices: where the SYNs come in, and where they go out"
}

// did says what a namespace passed on.
func did(at *evidence.Forwarded) string {
	place := "this host"
	if !at.Own {
		place = "network namespace " + at.Enter.Called(at.NetNS)
	}
	switch {
	case at.IPVS == 0:
		return place + " forwarded " + advice.Many(at.Packets, "packet")
	case at.Packets == 0:
		return "IPVS of " + place + " took " + advice.Many(at.IPVS, "packet")
	}
	return place + " forwarded " + advice.Many(at.Packets, "packet") + " and its IPVS took " +
		evidence.Thousands(at.IPVS)
}

// sawPassed cites what namespaces passed on.
func (f *Found) sawPassed(list []evidence.Forwarded) {
	for _, at := range evidence.Bound(list, maxElsewhere) {
		where := at.Enter.InSpace(at.NetNS, at.Own)
		if at.Packets > 0 {
			f.saw("packets forwarded"+where, at.Packets, "packets")
		}
		if at.IPVS > 0 {
			f.saw("packets that IPVS took"+where, at.IPVS, "packets")
		}
	}
}

// sawBefore reports what may have had the SYNs before the only network namespace that was asked
// about: of those that died in others, which makes their end the cause, or else that others passed
// packets on, or that nobody looked.
func (f *Found) sawBefore(e *evidence.Evidence) {
	if !e.OneNetNS {
		return
	}
	var n uint64
	var first *evidence.Stray
	for i := range e.Strays {
		s := &e.Strays[i]
		if !s.DiedBefore() {
			continue
		}
		if n += s.Count; first == nil || s.Count > first.Count {
			first = s
		}
		by := s.Freer()
		f.saw("SYNs to "+evidence.Where(event.Listener{Addr: s.Server.Addr,
			Port: s.Server.Port})+" dropped before it by "+by.Place+s.In(), s.Count, "packets")
		f.fix(by.Fix...)
	}
	if n > 0 {
		by := first.Freer()
		f.Severity, f.Confidence, f.Doubt, f.Weight = event.SeverityCause,
			event.ConfidenceLikely, true, n
		f.Owner = by.Owner
		f.Title = "SYNs to " + evidence.Where(event.Listener{Addr: first.Server.Addr,
			Port: first.Server.Port}) +
			" die before this network namespace, by " + by.Place + first.In()
		f.Because += "; " + advice.Many(n, "SYN") + " to " +
			evidence.Where(event.Listener{Addr: first.Server.Addr,
				Port: first.Server.Port}) + " " + advice.Be(n) +
			" dropped before it, by " + by.Place + first.In()
		f.Settles = "whether those are the clients in question: " + askHost
		return
	}
	before := slices.DeleteFunc(slices.Clone(e.Forwarded),
		func(at evidence.Forwarded) bool { return !at.Before })
	f.sawPassed(before)
	if f.Confidence != event.ConfidenceProven || len(before) == 0 && e.StraysMs != nil {
		return
	}
	f.Confidence, f.Settles = event.ConfidenceLikely, askHost
	if len(before) > 0 {
		f.Because += "; " + did(&before[0]) +
			" meanwhile, and may have sent the clients' SYNs elsewhere (NAT, IPVS, a route)"
	}
}

// askHost is what tells of a namespace before the one asked about.
const askHost = "synspy diagnose with --port and without --netns, on this host"

// away lists the diversions that send to an address, what was seen before what was inferred: of
// another host, if packets are passed on.
func away(e *evidence.Evidence) []evidence.Diversion {
	list := slices.DeleteFunc(slices.Clone(e.Diversions),
		func(d evidence.Diversion) bool { return !d.To.Addr().IsValid() })
	slices.SortStableFunc(list, func(a, b evidence.Diversion) int { return rank(b) - rank(a) })
	return list
}
