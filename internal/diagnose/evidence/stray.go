// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// freer is who frees SYN-ACKs on their way out, and what to do about it.
type freer struct {
	Place string // "netfilter at output"
	Owner string
	Fix   []string
}

// receives are what a SYN-ACK dies of that came to its client on this host: no way out.
var receives = []string{"NO_SOCKET", "TCP_", "SOCKET_", "OTHERHOST", "PACKET_SOCK_ERROR",
	"SKB_CONSUMED", "QUEUE_PURGE", "IP_RPFILTER"}

// WayOut reports whether the packet was on its way out.
func (s *Stray) WayOut() bool {
	starts := func(with string) bool { return strings.HasPrefix(s.Kernel.Reason, with) }
	return s.Answer && !slices.ContainsFunc(receives, starts) &&
		!strings.HasPrefix(s.Kernel.Function, "tcp_") &&
		!slices.Contains(sniffers, s.Kernel.Function)
}

// neighbour reports whether the next hop's link address was not to be had.
func (s *Stray) neighbour() bool {
	return strings.HasPrefix(s.Kernel.Reason, "NEIGH_") ||
		slices.Contains([]string{"neigh_invalidate", "arp_error_report",
			"ndisc_error_report", "__neigh_event_send"}, s.Kernel.Function)
}

// named is the device in a command.
func (s *Stray) named() string {
	if Plain(s.Device) {
		return s.Device
	}
	return "DEVICE"
}

// Freer is what frees packets where this one was freed.
func (s *Stray) Freer() freer {
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
	in := s.Enter.Command()
	switch {
	case k.Hook != "" || k.Reason == "NETFILTER_DROP" || k.Function == "nf_hook_slow":
		at, list := "netfilter", in+"nft -a list ruleset; "+in+"iptables-save -c"
		if k.Hook != "" {
			at += " at " + k.Hook
		}
		if k.Family != "" {
			at += " (family " + k.Family + ")" + on
		}
		if Queued(k) {
			return freer{at + ", by a queue that no program reads", platform,
				[]string{"start the program that reads the queue, or give the rule the flag bypass: " + list}}
		}
		return freer{at, platform, []string{"look for what drops packets " + way +
			" the listener's port, a rule, a policy of drop or 'ct state invalid': " +
			list}}
	case k.Reason == "TC_INGRESS":
		return freer{"tc at ingress" + on, platform, []string{in + "tc filter show dev " +
			s.named() + " ingress; " + in + "bpftool net show"}}
	case k.Reason == "XDP":
		return freer{"an XDP program" + on, platform, []string{in + "bpftool net show"}}
	case s.Answer && slices.Contains(discards, k.Function):
		return freer{"IPsec, for want of a state, or a route that is no more (" +
			k.Function + ")", platform,
			[]string{"see whether a policy has no state: " + in + "ip xfrm policy; " +
				in + "ip xfrm state; XfrmOutNoStates in /proc/net/xfrm_stat",
				"otherwise look for a route or device that came and went: " + in +
					"ip monitor route link"}}
	case slices.Contains(unrouted, k.Function):
		to := s.Server.Addr.String()
		if s.Answer {
			to = "CLIENT"
		}
		return freer{"a route that refuses or discards it, or for want of one", "network",
			[]string{"see which route it is: " + in + "ip route get " + to}}
	case s.neighbour():
		return freer{"the neighbour table" + on +
			": the next hop did not answer ARP or neighbour discovery", "network",
			[]string{"find out why the next hop does not answer: " + in +
				"ip neigh show; " + in +
				"ip route get CLIENT (wrong subnet or VLAN, its own firewall, a gateway that is down)"}}
	case k.Reason == "BPF_CGROUP_EGRESS" || k.Reason == "" &&
		(k.Function == "ip_finish_output" || k.Function == "ip6_finish_output"):
		return freer{"a cgroup's egress program", platform,
			[]string{"look at IPAddressDeny= and IPAddressAllow= of the unit (systemctl show), and at bpftool cgroup tree"}}
	case k.Reason == "TC_EGRESS" || strings.HasPrefix(k.Function, "sch_handle_egress") ||
		strings.HasPrefix(k.Function, "tcf_"):
		return freer{"tc at egress" + on, platform,
			[]string{"change the filter or program that drops SYN-ACKs, which these list: " + in + "tc filter show dev " + s.named() + " egress; " + in + "bpftool net show"}}
	case strings.HasPrefix(k.Reason, "QDISC_") || strings.HasPrefix(k.Reason, "FQ_"):
		return freer{"the queueing discipline" + on, "node",
			[]string{"see which queue drops: " + in +
				"tc -s qdisc show: what it drops, and its limits"}}
	}
	return freer{strings.TrimSpace("the kernel's " + cmp.Or(k.Function, "code") + on +
		reasonInBrackets(k.Reason)), "node",
		[]string{"look at the counters of the device: " + in + "ip -s -s link"}}
}

// Frame reports whether it is a SYN in a frame for another host.
func (s *Stray) Frame() bool { return !s.Answer && !s.Segment && !s.Syn }

// unrouted free what is to be forwarded and has no route, or one of type blackhole, unreachable or
// prohibit.
var unrouted = []string{"ip_error", "dst_discard", "dst_discard_out", "ip6_pkt_drop",
	"ip6_pkt_discard", "ip6_pkt_prohibit"}

// DiedBefore reports whether it is SYNs that were dropped on their way to the namespace asked
// about.
func (s *Stray) DiedBefore() bool {
	return s.Syn && !slices.Contains([]string{"OTHERHOST", "PACKET_SOCK_ERROR", "SKB_CONSUMED"},
		s.Kernel.Reason) && !slices.Contains(sniffers, s.Kernel.Function)
}

// In ends a sentence with the namespace where it was freed.
func (s *Stray) In() string { return cmp.Or(s.Enter.InSpace(s.NetNS, s.Own), " on this host") }

// IsSegment reports whether it is a client's, without SYN.
func (s *Stray) IsSegment() bool { return s.Segment }

func reasonInBrackets(reason string) string {
	if reason == "" || reason == "NOT_SPECIFIED" {
		return ""
	}
	return " (" + reason + ")"
}

// discards free what this host sends by a route that is not to be used: IPsec hands one out while a
// policy has no state.
var discards = []string{"dst_discard", "dst_discard_out", "xdst_queue_output"}

// sniffers free copies of packets that are not lost.
var sniffers = []string{"packet_rcv", "tpacket_rcv"}

// Queued reports whether a queue of netfilter's was where it ended.
func Queued(k event.Kernel) bool {
	return slices.Contains([]string{"nf_queue", "nf_reinject", "nfqnl_reinject"}, k.Function)
}
