// SPDX-License-Identifier: Apache-2.0

// Package ingress holds the scenarios in which a SYN dies before any listener sees it, or in a
// filter of its socket.
package ingress

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// Scenarios lists what kills a SYN before any listener sees it, and the
// filters of a socket.
func Scenarios() []scenario.Scenario {
	return []scenario.Scenario{
		{
			Name: "no-listener", Title: "SYN to a closed port",
			Explain: "SYNs to a port where nobody listens, where the listener is bound to 127.0.0.1, and where it is bound to another device: 7 resets. ACK, FIN, RST and SYN-ACK to the closed port are not SYNs and yield nothing.",
			Play:    playNoListener(world.Family4, world.Loopback4),
		},
		{
			Name: "no-listener-ipv6", Title: "SYN to a closed port, IPv6",
			Explain: "no-listener with IPv6 clients; the bound address is ::1.",
			Play:    scenario.NeedsIPv6(playNoListener(world.Family6, world.Loopback6)),
		},
		{
			Name: "time-wait", Title: "SYN into TIME_WAIT",
			Explain: "The server closed first and keeps TIME_WAIT; SYNs of the same ports with an older sequence number or timestamp are refused, at first with an ACK, then quietly. Newer ones are answered and yield nothing.",
			Play:    playTimeWait(world.Family4),
		},
		{
			Name: "time-wait-ipv6", Title: "SYN into TIME_WAIT, IPv6",
			Explain: "time-wait with IPv6 clients.",
			Play:    scenario.NeedsIPv6(playTimeWait(world.Family6)),
		},
		{
			Name: "netfilter-drop", Title: "nftables drops SYNs",
			Explain: "A rule in the input hook drops SYNs to a port with a healthy listener; another port of the same process answers.",
			Play:    playFirewall(world.Family4, world.HookInput, world.Drop()),
		},
		{
			Name: "netfilter-drop-ipv6", Title: "nftables drops SYNs, IPv6",
			Explain: "netfilter-drop with IPv6 clients.",
			Play: scenario.NeedsIPv6(playFirewall(world.Family6, world.HookInput,
				world.Drop())),
		},
		{
			Name:    "netfilter-drop-prerouting",
			Title:   "nftables drops SYNs before routing",
			Explain: "netfilter-drop in the prerouting hook, where the packet has no route yet.",
			Play:    playFirewall(world.Family4, world.HookPrerouting, world.Drop()),
		},
		{
			Name: "netfilter-reject", Title: "nftables rejects SYNs",
			Explain: "netfilter-drop with 'reject with tcp reset': the client is refused by the firewall, not by a closed port.",
			Play: playFirewall(world.Family4, world.HookInput,
				world.RejectRST()), Prepare: world.PrepareReject(world.Family4),
		},
		{
			Name: "netfilter-reject-ipv6", Title: "nftables rejects SYNs, IPv6",
			Explain: "netfilter-reject with IPv6 clients.",
			Play: scenario.NeedsIPv6(playFirewall(world.Family6, world.HookInput,
				world.RejectRST())), Prepare: world.PrepareReject(world.Family6),
		},
		{
			Name: "netfilter-reject-icmp", Title: "nftables rejects SYNs by ICMP",
			Explain: "netfilter-reject with 'reject' alone, as kube-proxy does for a service without endpoints: an ICMP error, which clients take for a refusal as well.",
			Play: playFirewall(world.Family4, world.HookInput,
				world.RejectICMP(3, "icmp port-unreachable",
					"refused")), Prepare: world.PrepareReject(world.Family4),
		},
		{
			Name: "netfilter-reject-admin", Title: "nftables prohibits SYNs",
			Explain: "netfilter-reject with 'icmp type admin-prohibited', as firewalld does: clients see no route to the host.",
			Play: playFirewall(world.Family4, world.HookInput,
				world.RejectICMP(13, "icmp admin-prohibited",
					event.SeesUnreachable)), Prepare: world.PrepareReject(
				world.Family4),
		},
		{
			Name:    "netfilter-reject-icmp-ipv6",
			Title:   "nftables rejects SYNs by ICMP, IPv6",
			Explain: "netfilter-reject-icmp with IPv6 clients.",
			Play: scenario.NeedsIPv6(playFirewall(world.Family6, world.HookInput,
				world.RejectICMP(4, "icmpv6 port-unreachable",
					"refused"))), Prepare: world.PrepareReject(world.Family6),
		},
		{
			Name:    "netfilter-ingress",
			Title:   "nftables drops SYNs as a device receives them",
			Explain: "netfilter-drop in the ingress hook of the device (family netdev), before prerouting.",
			Play:    playFirewall(world.Family4, world.HookIngress, world.Drop()),
		},
		{
			Name: "netfilter-queue", Title: "a netfilter queue that nobody reads",
			Explain: "netfilter-drop with 'queue' in the place of 'drop', and no program that reads the queue: the kernel frees the packets without a reason.",
			Play: playFirewall(world.Family4, world.HookInput,
				world.Queue()), Prepare: world.PrepareQueueOf(
				world.At(world.Server4, 1)),
		},
		{
			Name: "rp-filter", Title: "reverse path filter",
			Explain: "With rp_filter=1, SYNs from addresses whose route leads through another device are dropped.",
			Play:    playRPFilter,
		},
		{
			Name: "checksum", Title: "bad checksum",
			Explain: "SYNs with a bad TCP checksum (one carries data, which is checked later) and with a bad IP checksum; the same SYN undamaged is answered.",
			Play:    playChecksum(world.Family4),
		},
		{
			Name: "checksum-ipv6", Title: "bad checksum, IPv6",
			Explain: "SYNs with a bad TCP checksum over IPv6, which has no checksum of its own.",
			Play:    scenario.NeedsIPv6(playChecksum(world.Family6)),
		},
		{
			Name: "cpu-backlog", Title: "CPU receive backlog full",
			Explain: "SYNs queued behind an unresolved neighbour are let go all at once, inside one softirq: what netdev_max_backlog cannot hold is dropped, the others are answered.",
			Play:    playCPUBacklog,
		},
		{
			Name: "policy", Title: "TTL below IP_MINTTL",
			Explain: "A listener with IP_MINTTL 200 drops SYNs that came further than that; one without answers the same clients.",
			Play:    playMinTTL(world.Family4),
		},
		{
			Name: "policy-ipv6", Title: "hop limit below IPV6_MINHOPCOUNT",
			Explain: "policy with IPv6 clients.",
			Play:    scenario.NeedsIPv6(playMinTTL(world.Family6)),
		},
		{
			Name: "policy-xfrm", Title: "IPsec required",
			Explain: "An XFRM policy wants IPsec for a port; SYNs in the clear are dropped, those to the next port are answered.",
			Play:    playXFRM(world.Family4),
		},
		{
			Name: "policy-xfrm-ipv6", Title: "IPsec required, IPv6",
			Explain: "policy-xfrm with IPv6 clients.",
			Play:    scenario.NeedsIPv6(playXFRM(world.Family6)),
		},
		{
			Name: "socket-filter", Title: "BPF filter on the listener",
			Explain: "SO_ATTACH_FILTER on two listeners: one refuses SYNs, the other bare ACKs, so that its clients believe they are connected until they send data.",
			Play:    playSocketFilter(world.Family4, withSocketFilters),
		},
		{
			Name: "socket-filter-ipv6", Title: "BPF filter on the listener, IPv6",
			Explain: "socket-filter with IPv6 clients.",
			Play: scenario.NeedsIPv6(playSocketFilter(world.Family6,
				withSocketFilters)),
		},
		{
			Name: "socket-filter-cgroup", Title: "cgroup ingress program",
			Explain: "socket-filter with a cgroup_skb program in the filters' place: the server makes its listeners in a private cgroup, whose ingress program refuses SYNs to one port and bare ACKs to the other.",
			Play:    playSocketFilter(world.Family4, withCgroupFilter),
		},
		{
			Name: "socket-filter-cgroup-ipv6", Title: "cgroup ingress program, IPv6",
			Explain: "socket-filter-cgroup with IPv6 clients.",
			Play: scenario.NeedsIPv6(playSocketFilter(world.Family6,
				withCgroupFilter)),
		},
		{
			Name: "kernel-other", Title: "SYN deaths that have no cause of their own",
			Explain: "SYNs to an address that is not local, from impossible sources, with broken IP options, with a TCP header too short, and cut off.",
			Play:    playKernelOther,
		},
		{
			Name:    "kernel-other-ipv6",
			Title:   "SYN deaths that have no cause of their own, IPv6",
			Explain: "SYNs to an address that is not local, from impossible sources, with an unknown destination option, with a TCP header too short, and cut off.",
			Play:    scenario.NeedsIPv6(playKernelOtherIPv6),
			Prepare: world.PrepareReject(world.Family6), // or nobody looks for the answers
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
