// SPDX-License-Identifier: Apache-2.0

package message

import (
	"testing"

	"github.com/synspy/synspy/internal/event"
)

func TestRefusal(t *testing.T) {
	reject := event.OutcomeIngressNetfilterReject
	for _, c := range []struct {
		outcome       event.Outcome
		v6            bool
		icmp          ICMP
		refusal, sees string
	}{
		{event.OutcomeIngressNetfilter, false, ICMP{}, "", "timeout"},
		{event.OutcomeIngressNetfilter, false, ICMP{3, 3}, "",
			"timeout"}, // it answered another packet
		{reject, false, ICMP{}, "tcp reset", "refused"},
		{reject, false, ICMP{3, 3}, "icmp port-unreachable", "refused"},
		{reject, false, ICMP{3, 13}, "icmp admin-prohibited", event.SeesUnreachable},
		{reject, false, ICMP{3, 1}, "icmp host-unreachable", event.SeesUnreachable},
		{reject, false, ICMP{3, 77}, "icmp unreachable, code 77", event.SeesUnreachable},
		{reject, true, ICMP{1, 4}, "icmpv6 port-unreachable", "refused"},
		{reject, true, ICMP{1, 1}, "icmpv6 admin-prohibited", event.SeesUnreachable},
		{event.OutcomeIngressOtherRefused, false, ICMP{3, 1}, "icmp host-unreachable",
			event.SeesUnreachable},
	} {
		m := Message{Outcome: c.outcome, Family6: c.v6, ICMP: c.icmp}
		if got := m.Refusal(); got != c.refusal {
			t.Errorf("%+v: refused with %q, want %q", c.icmp, got, c.refusal)
		}
		if got := m.Sees(); got != c.sees {
			t.Errorf("%+v: the client sees %q, want %q", c.icmp, got, c.sees)
		}
	}
}

func TestHookOf(t *testing.T) {
	p := NewNames(nil, nil)
	p.functions = map[uint64]string{1: "__netif_receive_skb_core.constprop.0", 2: "ip_rcv",
		3: "nf_hook_slow_list", 4: "ip_sublist_rcv", 5: "br_handle_frame"}
	for _, c := range []struct {
		callers [2]uint64
		far     string
		want    hookPlace
	}{
		{[2]uint64{1, 2}, "prerouting", hookPlace{"ingress", "netdev"}},
		{[2]uint64{2, 1}, "prerouting", hookPlace{"prerouting", ""}},
		{[2]uint64{3, 4}, "prerouting", hookPlace{"prerouting", ""}},
		{[2]uint64{5, 1}, "prerouting", hookPlace{"prerouting", "bridge"}},
		{[2]uint64{}, "prerouting", hookPlace{hookUnrouted, ""}}, // nothing tells which
		{[2]uint64{}, "input", hookPlace{"input", ""}},
	} {
		if got := p.hookOf(&Message{Callers: c.callers, Hook: c.far}); got != c.want {
			t.Errorf("called by %v after %s: %+v, want %+v", c.callers, c.far, got,
				c.want)
		}
	}
}
