// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// sawForwarded takes back that no SYN came to the IP stack where it passed packets on, or that is not known: it received
// these, SYNs to addresses that are not its own may be among them, and they come to no listener.
func (f *found) sawForwarded(e *Evidence) {
	here := slices.DeleteFunc(slices.Clone(e.Forwarded), func(at Forwarded) bool { return at.Before })
	if len(here) == 0 {
		f.sawBefore(e)
		if e.lacks(NeedForwarded) && f.Confidence == event.ConfidenceProven {
			f.Confidence = event.ConfidenceLikely
			f.Settles = "nstat -az IpForwDatagrams Ip6OutForwDatagrams, twice, while clients time out: if it grows, SYNs may be passed on"
		}
		return
	}
	slices.SortStableFunc(here, func(a, b Forwarded) int { return cmp.Compare(b.Packets+b.IPVS, a.Packets+a.IPVS) })
	f.doubt, f.Confidence = true, event.ConfidencePossible
	f.because = "no SYN reached a listener"
	if e.Filter != "" {
		f.because += " for " + e.Filter
	}
	first := &here[0]
	if list := away(e); len(list) > 0 {
		f.because += ", SYNs to " + list[0].from() + " are sent to " + whereTo(list[0].To) + " (" + list[0].how() + ")"
	}
	f.because += ", and " + first.did() + " meanwhile: SYNs to an address that is not its own are passed on"
	if first.IPVS > 0 {
		f.because += ", and those to a service of IPVS to its servers"
	}
	for _, d := range bound(away(e), maxElsewhere) {
		f.saw("SYNs to "+d.from()+" are sent to "+whereTo(d.To), d.how(), "")
	}
	f.sawPassed(here)
	f.fix("is the address that clients connect to one of this host's: "+first.Enter.command()+"ip -br address; if not, and it is to be, add it (a load balancer's VIP)",
		"does a DNAT rule, IPVS or a route send the port away: "+first.Enter.command()+"nft list ruleset; "+first.Enter.command()+"ipvsadm -Ln; "+
			first.Enter.command()+"conntrack -L")
	f.Settles = "tcpdump on the port, on all devices: where the SYNs come in, and where they go out"
}

// did says what a namespace passed on.
func (at *Forwarded) did() string {
	place := "this host"
	if !at.Own {
		place = "network namespace " + at.Enter.called(at.NetNS)
	}
	switch {
	case at.IPVS == 0:
		return place + " forwarded " + many(at.Packets, "packet")
	case at.Packets == 0:
		return "IPVS of " + place + " took " + many(at.IPVS, "packet")
	}
	return place + " forwarded " + many(at.Packets, "packet") + " and its IPVS took " + thousands(at.IPVS)
}

// sawPassed cites what namespaces passed on.
func (f *found) sawPassed(list []Forwarded) {
	for _, at := range bound(list, maxElsewhere) {
		where := at.Enter.inSpace(at.NetNS, at.Own)
		if at.Packets > 0 {
			f.saw("packets forwarded"+where, at.Packets, "packets")
		}
		if at.IPVS > 0 {
			f.saw("packets that IPVS took"+where, at.IPVS, "packets")
		}
	}
}

// sawBefore tells of what may have had the SYNs before the only network namespace that was asked about: of those that died in
// others, which makes their end the cause, or else that others passed packets on, or that nobody looked.
func (f *found) sawBefore(e *Evidence) {
	if !e.OneNetNS {
		return
	}
	var n uint64
	var first *Stray
	for i := range e.Strays {
		s := &e.Strays[i]
		if !s.diedBefore() {
			continue
		}
		if n += s.Count; first == nil || s.Count > first.Count {
			first = s
		}
		by := s.freer()
		f.saw("SYNs to "+where(event.Listener{Addr: s.Server.Addr, Port: s.Server.Port})+" dropped before it by "+by.place+s.in(), s.Count, "packets")
		f.fix(by.fix...)
	}
	if n > 0 {
		by := first.freer()
		f.Severity, f.Confidence, f.doubt, f.weight = event.SeverityCause, event.ConfidenceLikely, true, n
		f.Owner = by.owner
		f.Title = "SYNs to " + where(event.Listener{Addr: first.Server.Addr, Port: first.Server.Port}) +
			" die before this network namespace, by " + by.place + first.in()
		f.because += "; " + many(n, "SYN") + " to " + where(event.Listener{Addr: first.Server.Addr, Port: first.Server.Port}) + " " + be(n) +
			" dropped before it, by " + by.place + first.in()
		f.Settles = "whether those are the clients in question: " + askHost
		return
	}
	before := slices.DeleteFunc(slices.Clone(e.Forwarded), func(at Forwarded) bool { return !at.Before })
	f.sawPassed(before)
	if f.Confidence != event.ConfidenceProven || len(before) == 0 && e.StraysMs != nil {
		return
	}
	f.Confidence, f.Settles = event.ConfidenceLikely, askHost
	if len(before) > 0 {
		f.because += "; " + before[0].did() + " meanwhile, and may have sent the clients' SYNs elsewhere (NAT, IPVS, a route)"
	}
}

// askHost is what tells of a namespace before the one asked about.
const askHost = "synspy diagnose with --port and without --netns, on this host"

// away lists the diversions that send to an address, what was seen before what was inferred: of another host, if packets are passed on.
func away(e *Evidence) []Diversion {
	list := slices.DeleteFunc(slices.Clone(e.Diversions), func(d Diversion) bool { return !d.To.Addr().IsValid() })
	slices.SortStableFunc(list, func(a, b Diversion) int { return rank(b) - rank(a) })
	return list
}
