// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// ICMP is the error that answered a packet; the zero value for none.
type ICMP struct{ Type, Code uint8 }

// Refusal names the answer that a packet got in place of a connection as firewalls' rules do; empty where it got none.
func (m *Message) Refusal() string {
	switch {
	case m.Outcome != event.OutcomeIngressNetfilterReject && m.Outcome != event.OutcomeIngressOtherRefused:
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
	return map[uint8]string{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 3: "port-unreachable",
		9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"}
}

func unreachable6() map[uint8]string {
	return map[uint8]string{0: "no-route", 1: "admin-prohibited", 2: "beyond-scope", 3: "addr-unreachable", 4: "port-unreachable",
		5: "policy-fail", 6: "reject-route"}
}

// hookPlace is where netfilter looked at a packet. Family is empty where several share the hook: ip, ip6 and inet.
type hookPlace struct{ hook, family string }

// hookCallers are the functions that call netfilter at each hook. A list of packets goes
// through nf_hook_slow_list.
func hookCallers() map[string]hookPlace {
	const bridge, netdev = "bridge", "netdev"
	return map[string]hookPlace{
		"__netif_receive_skb_core": {"ingress", netdev}, "nf_ingress": {"ingress", netdev}, "nf_hook_ingress": {"ingress", netdev},
		"__dev_queue_xmit": {"egress", netdev}, "nf_hook_egress": {"egress", netdev},
		"ip_rcv": {"prerouting", ""}, "ip_sublist_rcv": {"prerouting", ""}, "ip_list_rcv": {"prerouting", ""},
		"ipv6_rcv": {"prerouting", ""}, "ip6_sublist_rcv": {"prerouting", ""}, "ipv6_list_rcv": {"prerouting", ""},
		"ip_local_deliver": {"input", ""}, "ip6_input": {"input", ""},
		"ip_forward": {"forward", ""}, "ip6_forward": {"forward", ""},
		"__ip_local_out": {"output", ""}, "ip_local_out": {"output", ""}, "ip_build_and_send_pkt": {"output", ""},
		"__ip6_local_out": {"output", ""}, "ip6_local_out": {"output", ""}, "ip6_xmit": {"output", ""},
		"ip_output": {"postrouting", ""}, "ip_mc_output": {"postrouting", ""}, "ip6_output": {"postrouting", ""},
		"br_handle_frame": {"prerouting", bridge}, "br_pass_frame_up": {"input", bridge}, "__br_forward": {"forward", bridge},
		"br_forward_finish": {"postrouting", bridge}, "br_dev_queue_push_xmit": {"postrouting", bridge},
		// The rules of ip and ip6, asked on a bridge (net.bridge.bridge-nf-call-iptables).
		"br_nf_pre_routing": {"prerouting", ""}, "br_nf_pre_routing_ipv6": {"prerouting", ""},
		"br_nf_forward_ip": {"forward", ""}, "br_nf_forward": {"forward", ""}, "br_nf_post_routing": {"postrouting", ""},
	}
}

// hookUnrouted is all that is known of where a packet without a route was.
const hookUnrouted = "ingress or prerouting"

// hookOf tells at which hook netfilter freed the packet: by its callers, or, where they are not told, by how far it came.
func (p *Probe) hookOf(m *Message) hookPlace {
	if at := p.calledAt(m.Callers); at.hook != "" {
		return at
	}
	if m.Hook == "prerouting" {
		return hookPlace{hook: hookUnrouted}
	}
	return hookPlace{hook: m.Hook}
}

// calledAt is the hook by who called netfilter; zero where that is not told.
func (p *Probe) calledAt(callers [2]uint64) hookPlace {
	for _, address := range callers {
		name, _, _ := strings.Cut(p.functionAt(address), ".") // less what compilers append
		if place, ok := hookCallers()[name]; ok {
			return place
		}
	}
	return hookPlace{}
}

// Kernel is what the kernel told of the packet's death beyond its outcome.
func (p *Probe) Kernel(m *Message) event.Kernel {
	branch := m.Outcome.Branch()
	k := event.Kernel{Function: branch.FunctionFor(m.Family6), Counters: m.Outcome.CounterNames(), Reason: p.Reason(m), Refusal: m.Refusal()}
	if branch.Cause == event.CauseNetfilter {
		at := p.hookOf(m)
		k.Hook, k.Family = at.hook, at.family
	}
	if k.Function == "" || branch.Cause == event.CauseNetfilter { // the place tells rules from queues
		if name := p.functionAt(m.Place); name != "" {
			k.Function = name
		}
	}
	return k
}

// rejectUse tells what modules say of rules that reject.
type rejectUse func() (kernel.RejectUse, error)

// unwatched reads how many SYNs died while nobody looked at what is sent: by rules of netfilter,
// and otherwise before a listener.
func (p *Probe) unwatched() (byRules, others uint64, err error) {
	counted := map[string]*uint64{"unwatched_rules": &byRules, "unwatched_others": &others}
	for name, to := range counted {
		if err := p.collection.Variables[name].Get(to); err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return byRules, others, nil
}

// mayBeAnswered reports whether what is sent has to be looked at. Every packet pays for that, so
// it is where a rule rejects, as modules tell, or a SYN died that may have been answered. Which
// rules there are in a kernel without these modules is not asked again: there the first SYN that
// any rule drops is enough.
func (p *Probe) mayBeAnswered(modules rejectUse) (bool, error) {
	byRules, others, err := p.unwatched()
	if err != nil {
		return false, err
	}
	if p.facts.rejectsBuiltIn() {
		return byRules+others > 0, nil
	}
	use, err := modules()
	if err != nil {
		return false, err
	}
	if !use.Used {
		p.late.dropped = byRules // by nothing but drops
	}
	return use.Used || use.Loaded && others > 0, nil
}

// watchAnswers tells the kernel side that what is sent is looked at from now on.
func (p *Probe) watchAnswers() error {
	if err := p.collection.Variables["answers_watched"].Set(uint32(1)); err != nil {
		return fmt.Errorf("set answers_watched: %w", err)
	}
	return nil
}

// unanswered is how many SYNs were told of as dropped and may have been rejected.
func (p *Probe) unanswered() (uint64, error) {
	byRules, others, err := p.unwatched()
	return byRules - p.late.dropped + others, err
}
