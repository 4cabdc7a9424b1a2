// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// Stray is packets that this host freed where no drop is counted: SYN-ACKs on their way out, SYNs in frames for another host,
// clients' segments without SYN that netfilter, tc or XDP dropped, or SYNs to the only network namespace asked about that died in
// another one.
type Stray struct {
	Answer  bool           `json:"answer,omitempty"`  // a SYN-ACK; if it is none of these, such a frame
	Segment bool           `json:"segment,omitempty"` // a handshake's ACK, or a later one
	Syn     bool           `json:"syn,omitempty"`     // on its way to the namespace asked about
	Server  event.Endpoint `json:"server"`            // the listener's end
	NetNS   uint64         `json:"netns,omitempty"`   // where it was freed
	From    uint64         `json:"from,omitempty"`    // namespace that sent an answer, or that a segment is for; 0 where several may have, or another host
	Enter   Enter          `json:"enter,omitzero"`    // how that is entered
	Own     bool           `json:"own,omitempty"`     // it is synspy's own namespace
	Device  string         `json:"device,omitempty"`  // that it was on; empty: it had none yet, or that is not known
	// MAC is the one that a frame was for, OwnMAC the device's.
	MAC    string       `json:"mac,omitempty"`
	OwnMAC string       `json:"own_mac,omitempty"`
	Kernel event.Kernel `json:"kernel,omitzero"`
	Count  uint64       `json:"count"`
}

// freer is who frees SYN-ACKs on their way out, and what to do about it.
type freer struct {
	place string // "netfilter at output"
	owner string
	fix   []string
}

// receives are what a SYN-ACK dies of that came to its client on this host: no way out.
var receives = []string{"NO_SOCKET", "TCP_", "SOCKET_", "OTHERHOST", "PACKET_SOCK_ERROR", "SKB_CONSUMED", "QUEUE_PURGE", "IP_RPFILTER"}

// wayOut tells whether the packet was on its way out.
func (s *Stray) wayOut() bool {
	starts := func(with string) bool { return strings.HasPrefix(s.Kernel.Reason, with) }
	return s.Answer && !slices.ContainsFunc(receives, starts) && !strings.HasPrefix(s.Kernel.Function, "tcp_") &&
		!slices.Contains(sniffers, s.Kernel.Function)
}

// neighbour tells whether the next hop's link address was not to be had.
func (s *Stray) neighbour() bool {
	return strings.HasPrefix(s.Kernel.Reason, "NEIGH_") ||
		slices.Contains([]string{"neigh_invalidate", "arp_error_report", "ndisc_error_report", "__neigh_event_send"}, s.Kernel.Function)
}

// named is the device in a command.
func (s *Stray) named() string {
	if plain(s.Device) {
		return s.Device
	}
	return "DEVICE"
}

func (s *Stray) freer() freer {
	k := s.Kernel
	on := ""
	if s.Device != "" {
		on = " of " + Said(s.Device)
	}
	const platform = "platform"
	way := "from"
	if !s.Answer {
		way = "to"
	}
	in := s.Enter.command()
	switch {
	case k.Hook != "" || k.Reason == "NETFILTER_DROP" || k.Function == "nf_hook_slow":
		at, list := "netfilter", in+"nft -a list ruleset; "+in+"iptables-save -c"
		if k.Hook != "" {
			at += " at " + k.Hook
		}
		if k.Family != "" {
			at += " (family " + k.Family + ")" + on
		}
		if queued(k) {
			return freer{at + ", by a queue that no program reads", platform,
				[]string{"start the program that reads the queue, or give the rule the flag bypass: " + list}}
		}
		return freer{at, platform, []string{"look for what drops packets " + way + " the listener's port, a rule, a policy of drop or 'ct state invalid': " + list}}
	case k.Reason == "TC_INGRESS":
		return freer{"tc at ingress" + on, platform, []string{in + "tc filter show dev " + s.named() + " ingress; " + in + "bpftool net show"}}
	case k.Reason == "XDP":
		return freer{"an XDP program" + on, platform, []string{in + "bpftool net show"}}
	case s.Answer && slices.Contains(discards, k.Function):
		return freer{"IPsec, for want of a state, or a route that is no more (" + k.Function + ")", platform,
			[]string{"see whether a policy has no state: " + in + "ip xfrm policy; " + in + "ip xfrm state; XfrmOutNoStates in /proc/net/xfrm_stat",
				"otherwise look for a route or device that came and went: " + in + "ip monitor route link"}}
	case slices.Contains(unrouted, k.Function):
		to := s.Server.Addr.String()
		if s.Answer {
			to = "CLIENT"
		}
		return freer{"a route that refuses or discards it, or for want of one", "network", []string{"see which route it is: " + in + "ip route get " + to}}
	case s.neighbour():
		return freer{"the neighbour table" + on + ": the next hop did not answer ARP or neighbour discovery", "network",
			[]string{"find out why the next hop does not answer: " + in + "ip neigh show; " + in + "ip route get CLIENT (wrong subnet or VLAN, its own firewall, a gateway that is down)"}}
	case k.Reason == "BPF_CGROUP_EGRESS" || k.Reason == "" && (k.Function == "ip_finish_output" || k.Function == "ip6_finish_output"):
		return freer{"a cgroup's egress program", platform,
			[]string{"look at IPAddressDeny= and IPAddressAllow= of the unit (systemctl show), and at bpftool cgroup tree"}}
	case k.Reason == "TC_EGRESS" || strings.HasPrefix(k.Function, "sch_handle_egress") || strings.HasPrefix(k.Function, "tcf_"):
		return freer{"tc at egress" + on, platform, []string{"change the filter or program that drops SYN-ACKs, which these list: " + in + "tc filter show dev " + s.named() + " egress; " + in + "bpftool net show"}}
	case strings.HasPrefix(k.Reason, "QDISC_") || strings.HasPrefix(k.Reason, "FQ_"):
		return freer{"the queueing discipline" + on, "node", []string{"see which queue drops: " + in + "tc -s qdisc show: what it drops, and its limits"}}
	}
	return freer{strings.TrimSpace("the kernel's " + cmp.Or(k.Function, "code") + on + reasonInBrackets(k.Reason)), "node",
		[]string{"look at the counters of the device: " + in + "ip -s -s link"}}
}

func reasonInBrackets(reason string) string {
	if reason == "" || reason == "NOT_SPECIFIED" {
		return ""
	}
	return " (" + reason + ")"
}

// Frame tells whether it is a SYN in a frame for another host.
func (s *Stray) Frame() bool { return !s.Answer && !s.Segment && !s.Syn }

// unrouted free what is to be forwarded and has no route, or one of type blackhole, unreachable or prohibit.
var unrouted = []string{"ip_error", "dst_discard", "dst_discard_out", "ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit"}

// discards free what this host sends by a route that is not to be used: IPsec hands one out while a policy has no state.
var discards = []string{"dst_discard", "dst_discard_out", "xdst_queue_output"}

// sniffers free copies of packets that are not lost.
var sniffers = []string{"packet_rcv", "tpacket_rcv"}

// diedBefore tells whether it is SYNs that were dropped on their way to the namespace asked about.
func (s *Stray) diedBefore() bool {
	return s.Syn && !slices.Contains([]string{"OTHERHOST", "PACKET_SOCK_ERROR", "SKB_CONSUMED"}, s.Kernel.Reason) && !slices.Contains(sniffers, s.Kernel.Function)
}

// in ends a sentence with the namespace where it was freed.
func (s *Stray) in() string { return cmp.Or(s.Enter.inSpace(s.NetNS, s.Own), " on this host") }

// sawFrames tells of SYNs that came in frames for another host.
func (f *found) sawFrames(e *Evidence) {
	told := 0
	for _, s := range e.Strays {
		if !s.Frame() || told == maxFrames {
			continue
		}
		told++
		at := ""
		if s.Device != "" {
			at = " on " + Said(s.Device)
		}
		f.saw("SYNs to "+where(event.Listener{Addr: s.Server.Addr, Port: s.Server.Port})+" in frames for "+s.MAC+at, s.Count, "packets")
		if s.OwnMAC != "" {
			f.saw("MAC address of "+Said(s.Device), s.OwnMAC, "")
		}
		if told == 1 {
			f.because += "; SYNs came" + at + ", in frames for another MAC address (" + s.MAC + ")"
			f.fix("find out why frames for this host's address go to " + s.MAC + ": a stale ARP or neighbour entry at the client or its router, " +
				"an address that moved (VRRP, keepalived) or that two hosts have")
		}
	}
}

// maxFrames bounds how many kinds of such frames are told.
const maxFrames = 3

// queued tells whether a queue of netfilter's was where it ended.
func queued(k event.Kernel) bool {
	return slices.Contains([]string{"nf_queue", "nf_reinject", "nfqnl_reinject"}, k.Function)
}

// freed lists what was freed of a listener's strays of a kind, SYN-ACKs on their way out or segments, most first, those in its
// own namespace before others.
func (e *Evidence) freed(l *Listener, kind func(*Stray) bool) []Stray {
	var own, others []Stray
	for _, s := range e.Strays {
		addr := l.ID.Addr.Unmap()
		if !kind(&s) || s.From != l.ID.NetNS || s.Server.Port != l.ID.Port || !addr.IsUnspecified() && addr != s.Server.Addr.Unmap() {
			continue
		}
		if s.NetNS == l.ID.NetNS {
			own = append(own, s)
		} else if l.dropped(event.CauseHandshakeExpired) > 0 || value(l.SynAcksAgain) > 0 { // it is in trouble itself
			others = append(others, s)
		}
	}
	most := func(a, b Stray) int { return cmp.Compare(b.Count, a.Count) }
	slices.SortStableFunc(own, most)
	slices.SortStableFunc(others, most)
	return append(own, others...)
}

// ownErrors tells whether this host sends itself ICMP errors: host unreachable, once the next hop has not answered.
func (e *Evidence) ownErrors() bool {
	return slices.ContainsFunc(e.Strays, func(s Stray) bool { return s.wayOut() && s.neighbour() })
}

// dropsAnswers makes the finding about SYN-ACKs that did not leave: freed, or given up since they could not be sent.
func (f *found) dropsAnswers(l *Listener, freed []Stray) {
	n, places := f.citeFreers(l, freed, "SYN-ACKs", "to the client")
	if len(freed) > 0 {
		f.Owner = freed[0].freer().owner
		f.counted = true // what dies besides are the handshakes that this leaves behind, or ICMP errors about it
		f.because = many(n, "SYN-ACK") + " " + be(n) + " dropped on the way out here, by " + list(places)
		f.Confidence = event.ConfidenceProven
		if 2*n < f.weight || freed[0].NetNS != l.ID.NetNS {
			f.Confidence = event.ConfidenceLikely // the watch may have begun late; more is not seen
		}
		f.Settles = ""
		return
	}
	f.Owner = "platform"
	f.Confidence = event.ConfidenceLikely
	f.because = "this host could not send SYN-ACKs again"
	f.Settles = "where they are dropped here: the same again, for longer, while clients come"
	f.fix("look for what drops packets from the listener's port on this host's way out: nft list ruleset (output, postrouting), " +
		"ip neigh, the unit's IPAddressDeny=, tc filter show egress")
}

// citeFreers cites who freed packets of a kind, and what to do about it, and tells how many they were and where.
func (f *found) citeFreers(l *Listener, freed []Stray, what, way string) (n uint64, places []string) {
	at := make(map[string]int) // of Evidence, by place: several functions may free there
	for _, s := range freed {
		n += s.Count
		by := s.freer()
		if s.NetNS != l.ID.NetNS {
			by.place += s.Enter.inSpace(s.NetNS, s.Own) + ", on the way " + way
		}
		if !slices.Contains(places, by.place) && len(places) < 3 {
			places = append(places, by.place)
			at[by.place] = len(f.Evidence)
			f.saw(what+" dropped by "+by.place, s.Count, "packets")
			f.fix(by.fix...)
		} else if i, told := at[by.place]; told {
			f.Evidence[i].Value = f.Evidence[i].Value.(uint64) + s.Count
		}
		for _, named := range []struct{ what, value string }{{"kernel function", s.Kernel.Function}, {"kernel reason", s.Kernel.Reason}, {"device", Said(s.Device)}} {
			if named.value != "" && len(places) == 1 && s.Count == freed[0].Count {
				f.saw(named.what, named.value, "")
			}
		}
	}
	return n, places
}

// segment tells whether it is a client's, without SYN.
func (s *Stray) segment() bool { return s.Segment }

// dropped counts packets.
func dropped(strays []Stray) (n uint64) {
	for _, s := range strays {
		n += s.Count
	}
	return n
}

// dropsAcks makes the finding about the ACKs of handshakes that were dropped here before they reached the listener.
func (f *found) dropsAcks(l *Listener, freed []Stray) {
	n, places := f.citeFreers(l, freed, "clients' segments without SYN", "to the listener")
	f.Owner = "platform"
	f.counted = true // what dies besides are the handshakes that this leaves behind
	f.because = "ACKs of clients' handshakes were dropped here, by " + list(places)
	// Segments of connections look the same: where some handshake was finished, it may be those.
	f.Confidence, f.Settles = event.ConfidenceLikely, ""
	if l.Finished != nil && *l.Finished == 0 && 2*n >= f.weight && freed[0].NetNS == l.ID.NetNS {
		f.Confidence = event.ConfidenceProven
	}
}
