// SPDX-License-Identifier: Apache-2.0

package message

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// ICMP is the error that answered a packet; the zero value for none.
type ICMP struct{ Type, Code uint8 }

// Refusal names the answer that a packet got in place of a connection as firewalls' rules do; empty where it got none.
func (m *Message) Refusal() string {
	switch {
	case m.Outcome != event.OutcomeIngressNetfilterReject &&
		m.Outcome != event.OutcomeIngressOtherRefused:
		return ""
	case m.ICMP.Type == 0:
		return "tcp reset"
	case m.Family6:
		return "icmpv6 " + code(unreachable6(), m.ICMP.Code)
	}
	return "icmp " + code(unreachable4(), m.ICMP.Code)
}

// Sees is what the client makes of that answer.
func (m *Message) Sees() string {
	port := uint8(3) // ICMP_PORT_UNREACH
	if m.Family6 {
		port = 4 // ICMPV6_PORT_UNREACH
	}
	if m.Refusal() != "" && m.ICMP.Type != 0 && m.ICMP.Code != port {
		return event.SeesUnreachable
	}
	return m.Outcome.Branch().Sees()
}

func code(names map[uint8]string, n uint8) string {
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprintf("unreachable, code %d", n)
}

// unreachable4 names the codes of ICMP's destination unreachable, unreachable6 those of ICMPv6's, as nft does.
func unreachable4() map[uint8]string {
	return map[uint8]string{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable",
		3: "port-unreachable",
		9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"}
}

func unreachable6() map[uint8]string {
	return map[uint8]string{0: "no-route", 1: "admin-prohibited", 2: "beyond-scope",
		3: "addr-unreachable", 4: "port-unreachable",
		5: "policy-fail", 6: "reject-route"}
}

// hookPlace is where netfilter looked at a packet. Family is empty where several share the hook: ip, ip6 and inet.
type hookPlace struct{ Hook, Family string }

// hookCallers are the functions that call netfilter at each hook. A list of packets goes
// through nf_hook_slow_list.
func hookCallers() map[string]hookPlace {
	const bridge, netdev = "bridge", "netdev"
	return map[string]hookPlace{
		"__netif_receive_skb_core": {"ingress", netdev}, "nf_ingress": {"ingress",
			netdev}, "nf_hook_ingress": {"ingress", netdev},
		"__dev_queue_xmit": {"egress", netdev}, "nf_hook_egress": {"egress", netdev},
		"ip_rcv": {"prerouting", ""}, "ip_sublist_rcv": {"prerouting",
			""}, "ip_list_rcv": {"prerouting", ""},
		"ipv6_rcv": {"prerouting", ""}, "ip6_sublist_rcv": {"prerouting",
			""}, "ipv6_list_rcv": {"prerouting", ""},
		"ip_local_deliver": {"input", ""}, "ip6_input": {"input", ""},
		"ip_forward": {"forward", ""}, "ip6_forward": {"forward", ""},
		"__ip_local_out": {"output", ""}, "ip_local_out": {"output",
			""}, "ip_build_and_send_pkt": {"output", ""},
		"__ip6_local_out": {"output", ""}, "ip6_local_out": {"output",
			""}, "ip6_xmit": {"output", ""},
		"ip_output": {"postrouting", ""}, "ip_mc_output": {"postrouting",
			""}, "ip6_output": {"postrouting", ""},
		"br_handle_frame": {"prerouting", bridge}, "br_pass_frame_up": {"input",
			bridge}, "__br_forward": {"forward", bridge},
		"br_forward_finish": {"postrouting",
			bridge}, "br_dev_queue_push_xmit": {"postrouting", bridge},
		// The rules of ip and ip6, asked on a bridge (net.bridge.bridge-nf-call-iptables).
		"br_nf_pre_routing": {"prerouting", ""}, "br_nf_pre_routing_ipv6": {"prerouting",
			""},
		"br_nf_forward_ip": {"forward", ""}, "br_nf_forward": {"forward",
			""}, "br_nf_post_routing": {"postrouting", ""},
	}
}

// hookUnrouted is all that is known of where a packet without a route was.
const hookUnrouted = "ingress or prerouting"

// hookOf tells at which hook netfilter freed the packet: by its callers, or, where they are not told, by how far it came.
func (n *Names) hookOf(m *Message) hookPlace {
	if at := n.CalledAt(m.Callers); at.Hook != "" {
		return at
	}
	if m.Hook == "prerouting" {
		return hookPlace{Hook: hookUnrouted}
	}
	return hookPlace{Hook: m.Hook}
}

// CalledAt is the hook by who called netfilter; zero where that is not told.
func (n *Names) CalledAt(callers [2]uint64) hookPlace {
	for _, address := range callers {
		name, _, _ := strings.Cut(n.FunctionAt(address), ".") // less what compilers append
		if place, ok := hookCallers()[name]; ok {
			return place
		}
	}
	return hookPlace{}
}

// Kernel is what the kernel told of the packet's death beyond its outcome.
func (n *Names) Kernel(m *Message) event.Kernel {
	branch := m.Outcome.Branch()
	k := event.Kernel{Function: branch.FunctionFor(m.Family6),
		Counters: m.Outcome.CounterNames(), Reason: n.Reason(m), Refusal: m.Refusal()}
	if branch.Cause == event.CauseNetfilter {
		at := n.hookOf(m)
		k.Hook, k.Family = at.Hook, at.Family
	}
	if k.Function == "" ||
		branch.Cause == event.CauseNetfilter { // the place tells rules from queues
		if name := n.FunctionAt(m.Place); name != "" {
			k.Function = name
		}
	}
	return k
}
