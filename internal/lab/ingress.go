// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"

	"github.com/synspy/synspy/internal/event"
)

// ingressScenarios lists what kills a SYN before any listener sees it, and the
// filters of a socket.
func ingressScenarios() []Scenario {
	return []Scenario{
		{
			Name: "no-listener", Title: "SYN to a closed port",
			Explain: "SYNs to a port where nobody listens, where the listener is bound to 127.0.0.1, and where it is bound to another device: 7 resets. ACK, FIN, RST and SYN-ACK to the closed port are not SYNs and yield nothing.",
			Play:    playNoListener(family4, loopback4),
		},
		{
			Name: "no-listener-ipv6", Title: "SYN to a closed port, IPv6",
			Explain: "no-listener with IPv6 clients; the bound address is ::1.",
			Play:    needsIPv6(playNoListener(family6, loopback6)),
		},
		{
			Name: "time-wait", Title: "SYN into TIME_WAIT",
			Explain: "The server closed first and keeps TIME_WAIT; SYNs of the same ports with an older sequence number or timestamp are refused, at first with an ACK, then quietly. Newer ones are answered and yield nothing.",
			Play:    playTimeWait(family4),
		},
		{
			Name: "time-wait-ipv6", Title: "SYN into TIME_WAIT, IPv6",
			Explain: "time-wait with IPv6 clients.",
			Play:    needsIPv6(playTimeWait(family6)),
		},
		{
			Name: "netfilter-drop", Title: "nftables drops SYNs",
			Explain: "A rule in the input hook drops SYNs to a port with a healthy listener; another port of the same process answers.",
			Play:    playFirewall(family4, hookInput, drop()),
		},
		{
			Name: "netfilter-drop-ipv6", Title: "nftables drops SYNs, IPv6",
			Explain: "netfilter-drop with IPv6 clients.",
			Play:    needsIPv6(playFirewall(family6, hookInput, drop())),
		},
		{
			Name: "netfilter-drop-prerouting", Title: "nftables drops SYNs before routing",
			Explain: "netfilter-drop in the prerouting hook, where the packet has no route yet.",
			Play:    playFirewall(family4, hookPrerouting, drop()),
		},
		{
			Name: "netfilter-reject", Title: "nftables rejects SYNs",
			Explain: "netfilter-drop with 'reject with tcp reset': the client is refused by the firewall, not by a closed port.",
			Play:    playFirewall(family4, hookInput, rejectRST()), Prepare: prepareReject(family4),
		},
		{
			Name: "netfilter-reject-ipv6", Title: "nftables rejects SYNs, IPv6",
			Explain: "netfilter-reject with IPv6 clients.",
			Play:    needsIPv6(playFirewall(family6, hookInput, rejectRST())), Prepare: prepareReject(family6),
		},
		{
			Name: "netfilter-reject-icmp", Title: "nftables rejects SYNs by ICMP",
			Explain: "netfilter-reject with 'reject' alone, as kube-proxy does for a service without endpoints: an ICMP error, which clients take for a refusal as well.",
			Play:    playFirewall(family4, hookInput, rejectICMP(3, "icmp port-unreachable", "refused")), Prepare: prepareReject(family4),
		},
		{
			Name: "netfilter-reject-admin", Title: "nftables prohibits SYNs",
			Explain: "netfilter-reject with 'icmp type admin-prohibited', as firewalld does: clients see no route to the host.",
			Play:    playFirewall(family4, hookInput, rejectICMP(13, "icmp admin-prohibited", event.SeesUnreachable)), Prepare: prepareReject(family4),
		},
		{
			Name: "netfilter-reject-icmp-ipv6", Title: "nftables rejects SYNs by ICMP, IPv6",
			Explain: "netfilter-reject-icmp with IPv6 clients.",
			Play:    needsIPv6(playFirewall(family6, hookInput, rejectICMP(4, "icmpv6 port-unreachable", "refused"))), Prepare: prepareReject(family6),
		},
		{
			Name: "netfilter-ingress", Title: "nftables drops SYNs as a device receives them",
			Explain: "netfilter-drop in the ingress hook of the device (family netdev), before prerouting.",
			Play:    playFirewall(family4, hookIngress, drop()),
		},
		{
			Name: "netfilter-queue", Title: "a netfilter queue that nobody reads",
			Explain: "netfilter-drop with 'queue' in the place of 'drop', and no program that reads the queue: the kernel frees the packets without a reason.",
			Play:    playFirewall(family4, hookInput, queue()), Prepare: prepareQueueOf(at(server4, 1)),
		},
		{
			Name: "rp-filter", Title: "reverse path filter",
			Explain: "With rp_filter=1, SYNs from addresses whose route leads through another device are dropped.",
			Play:    playRPFilter,
		},
		{
			Name: "checksum", Title: "bad checksum",
			Explain: "SYNs with a bad TCP checksum (one carries data, which is checked later) and with a bad IP checksum; the same SYN undamaged is answered.",
			Play:    playChecksum(family4),
		},
		{
			Name: "checksum-ipv6", Title: "bad checksum, IPv6",
			Explain: "SYNs with a bad TCP checksum over IPv6, which has no checksum of its own.",
			Play:    needsIPv6(playChecksum(family6)),
		},
		{
			Name: "cpu-backlog", Title: "CPU receive backlog full",
			Explain: "SYNs queued behind an unresolved neighbour are let go all at once, inside one softirq: what netdev_max_backlog cannot hold is dropped, the others are answered.",
			Play:    playCPUBacklog,
		},
		{
			Name: "policy", Title: "TTL below IP_MINTTL",
			Explain: "A listener with IP_MINTTL 200 drops SYNs that came further than that; one without answers the same clients.",
			Play:    playMinTTL(family4),
		},
		{
			Name: "policy-ipv6", Title: "hop limit below IPV6_MINHOPCOUNT",
			Explain: "policy with IPv6 clients.",
			Play:    needsIPv6(playMinTTL(family6)),
		},
		{
			Name: "policy-xfrm", Title: "IPsec required",
			Explain: "An XFRM policy wants IPsec for a port; SYNs in the clear are dropped, those to the next port are answered.",
			Play:    playXFRM(family4),
		},
		{
			Name: "policy-xfrm-ipv6", Title: "IPsec required, IPv6",
			Explain: "policy-xfrm with IPv6 clients.",
			Play:    needsIPv6(playXFRM(family6)),
		},
		{
			Name: "socket-filter", Title: "BPF filter on the listener",
			Explain: "SO_ATTACH_FILTER on two listeners: one refuses SYNs, the other bare ACKs, so that its clients believe they are connected until they send data.",
			Play:    playSocketFilter(family4, withSocketFilters),
		},
		{
			Name: "socket-filter-ipv6", Title: "BPF filter on the listener, IPv6",
			Explain: "socket-filter with IPv6 clients.",
			Play:    needsIPv6(playSocketFilter(family6, withSocketFilters)),
		},
		{
			Name: "socket-filter-cgroup", Title: "cgroup ingress program",
			Explain: "socket-filter with a cgroup_skb program in the filters' place: the server makes its listeners in a private cgroup, whose ingress program refuses SYNs to one port and bare ACKs to the other.",
			Play:    playSocketFilter(family4, withCgroupFilter),
		},
		{
			Name: "socket-filter-cgroup-ipv6", Title: "cgroup ingress program, IPv6",
			Explain: "socket-filter-cgroup with IPv6 clients.",
			Play:    needsIPv6(playSocketFilter(family6, withCgroupFilter)),
		},
		{
			Name: "kernel-other", Title: "SYN deaths that have no cause of their own",
			Explain: "SYNs to an address that is not local, from impossible sources, with broken IP options, with a TCP header too short, and cut off.",
			Play:    playKernelOther,
		},
		{
			Name: "kernel-other-ipv6", Title: "SYN deaths that have no cause of their own, IPv6",
			Explain: "SYNs to an address that is not local, from impossible sources, with an unknown destination option, with a TCP header too short, and cut off.",
			Play:    needsIPv6(playKernelOtherIPv6),
		},
		{
			Name: "other-host", Title: "frames for another host: no drop",
			Explain: "An Ethernet device sees SYNs whose frames are addressed to another host, as a switch floods them; the kernel frees them, and they are nobody's. The same SYNs addressed to this host are answered.",
			Play:    playOtherHost,
		},
		{
			Name: "outbound", Title: "SYNs that this host sends: no drop",
			Explain: "A process connects to another host; its SYN leaves, and another one is stopped by the firewall's output hook. Neither is a handshake that came in.",
			Play:    playOutbound,
		},
		{
			Name: "sniffer", Title: "a sniffer watches: no drop more",
			Explain: "Packet sockets like tcpdump's get a copy of every packet, and one of them loses most of its copies; only the 3 SYNs to a closed port are drops.",
			Play:    playSniffer,
		},
	}
}

var (
	loopback4 = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	loopback6 = netip.AddrPortFrom(netip.IPv6Loopback(), port)
)

// at is the address with another port.
func at(addr netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr(), port)
}

// ingress is the expectation of SYNs that die before any listener sees them:
// one record each, in this order, that names no listener (its zero value means
// this at StageIngress), and no counter of the closed list moves. A client that
// is listed twice sent its SYN twice.
func ingress(cause event.Cause, action event.Action, dead ...*Client) Expectation {
	records, handshakes := group(cause, event.StageIngress, action, dead)
	return Expectation{Records: []Expect{records}, Counters: counters(nil), Handshakes: handshakes}
}

// group is the records of these packets' deaths, and how many handshakes they
// belong to.
func group(cause event.Cause, stage event.Stage, action event.Action, dead []*Client) (Expect, int) {
	type handshake struct {
		flow
		isn uint32
	}
	e := Expect{Cause: cause, Stage: stage, Action: action, Count: len(dead), Clients: addresses(dead)}
	sent := make(map[handshake]int)
	for _, c := range dead {
		h := handshake{flow{c.Local, c.Remote}, c.ISN}
		sent[h]++
		e.Attempts = append(e.Attempts, sent[h])
	}
	return e, len(sent)
}

// wantFate fails unless each of the clients saw what the action means to it: an
// RST, or nothing at all.
func wantFate(action event.Action, clients ...*Client) error {
	for _, c := range clients {
		if c.Answered() {
			return fmt.Errorf("the SYN of client %s to %s was answered", c.Local, c.Remote)
		}
		if c.WasReset() != (action == event.ActionReset) {
			return fmt.Errorf("client %s of %s saw an RST: %t; expected %v", c.Local, c.Remote, c.WasReset(), action)
		}
	}
	return nil
}
