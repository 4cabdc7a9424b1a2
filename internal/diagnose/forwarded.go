package diagnose

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// sawForwarded takes back that no SYN came to the IP stack where it passed packets on, or that is not known: it received
// these, SYNs to addresses that are not its own may be among them, and they come to no listener.
func (f *found) sawForwarded(e *Evidence) {
	if len(e.Forwarded) == 0 {
		if e.lacks(NeedForwarded) && f.Confidence == event.ConfidenceProven {
			f.Confidence = event.ConfidenceLikely
			f.Settles = "nstat -az IpForwDatagrams Ip6OutForwDatagrams, twice, while clients time out: if it grows, SYNs may be passed on"
		}
		return
	}
	most := slices.SortedStableFunc(slices.Values(e.Forwarded), func(a, b Forwarded) int { return cmp.Compare(b.Packets, a.Packets) })
	f.doubt, f.Confidence = true, event.ConfidencePossible
	f.because = "no SYN reached a listener"
	if e.Filter != "" {
		f.because += " for " + e.Filter
	}
	first := &most[0]
	place := "this host"
	if !first.Own {
		place = "network namespace " + first.Enter.called(first.NetNS)
	}
	if list := away(e); len(list) > 0 {
		f.because += ", SYNs to " + list[0].from() + " are sent to " + whereTo(list[0].To) + " (" + list[0].how() + ")"
	}
	f.because += ", and " + place + " forwarded " + many(first.Packets, "packet") +
		" meanwhile: SYNs to an address that is not its own are passed on"
	for _, d := range bound(away(e), maxElsewhere) {
		f.saw("SYNs to "+d.from()+" are sent to "+whereTo(d.To), d.how(), "")
	}
	for _, at := range bound(most, maxElsewhere) {
		f.saw("packets forwarded"+at.Enter.inSpace(at.NetNS, at.Own), at.Packets, "packets")
	}
	f.fix("is the address that clients connect to one of this host's: "+first.Enter.command()+"ip -br address; if not, and it is to be, add it (a load balancer's VIP)",
		"does a DNAT rule, IPVS or a route send the port away: "+first.Enter.command()+"nft list ruleset; conntrack -L")
	f.Settles = "tcpdump on the port, on all devices: where the SYNs come in, and where they go out"
}

// away lists the diversions that send to an address, what was seen before what was inferred: of another host, if packets are passed on.
func away(e *Evidence) []Diversion {
	list := slices.DeleteFunc(slices.Clone(e.Diversions), func(d Diversion) bool { return !d.To.Addr().IsValid() })
	slices.SortStableFunc(list, func(a, b Diversion) int { return rank(b) - rank(a) })
	return list
}
