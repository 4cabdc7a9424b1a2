// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// ruledOutBy is a window in which netfilter killed n SYNs that way, all of them looked at but for
// those of more.
func ruledOutBy(more uint64, deaths ...evidence.Death) *evidence.Evidence {
	e := &evidence.Evidence{WindowMs: 10_000}
	n := more
	for _, d := range deaths {
		d.Cause, d.NetNS = event.CauseNetfilter, 4026532387
		d.Server = event.Endpoint{Addr: netip.MustParseAddr("10.9.0.1"), Port: 8080}
		e.Ingress = append(e.Ingress, d)
		n += d.Count
	}
	e.Counts = []event.Count{{Cause: event.CauseNetfilter, Stage: event.StageIngress,
		Action: event.ActionDropped, Count: n}}
	return e
}

// counted adds a dropping rule whose counter moved by n.
func counted(e *evidence.Evidence, n uint64) *evidence.Evidence {
	e.Rules = []evidence.FirewallRule{{NetNS: 4026532387, Family: "inet", Table: "f",
		Chain: "i", Handle: 4, Packets: n}}
	return e
}

// TestFirewall: what netfilter did, and where, is told from what it did not.
func TestFirewall(t *testing.T) {
	rule := func(n uint64, hook, family string) evidence.Death {
		return evidence.Death{Count: n, Device: "s0",
			Kernel: event.Kernel{Function: "nft_do_chain", Reason: "NETFILTER_DROP",
				Hook: hook, Family: family}}
	}
	slow := func(n uint64, hook string) evidence.Death {
		return evidence.Death{Count: n, Kernel: event.Kernel{Function: "nf_hook_slow",
			Reason: "NETFILTER_DROP", Hook: hook}}
	}
	reject := func(n uint64, with string) evidence.Death {
		return evidence.Death{Count: n, Kernel: event.Kernel{Function: "nft_do_chain",
			Hook: "input", Refusal: with}}
	}
	tracking := func(e *evidence.Evidence, c evidence.Conntrack) *evidence.Evidence {
		c.NetNS = 4026532387
		e.Conntrack = []evidence.Conntrack{c}
		return e
	}
	full := evidence.Conntrack{Count: 6, Max: 6, Buckets: 65536, Drops: 38}
	for _, c := range []struct {
		name      string
		e         *evidence.Evidence
		findings  int
		says, not []string
		sure      event.Confidence
	}{
		{"a rule", ruledOutBy(0, rule(18, "input", "")), 1,
			[]string{"netfilter hook: input", "change the rule", "10.9.0.1:8080: 18",
				"died: a rule of iptables or nftables, or its chain's policy, drops them"}, []string{"inferred", "REJECT", "kernel.hook"}, event.ConfidenceProven},
		{"a rule that counts", counted(ruledOutBy(0, rule(18, "input", "")), 18), 1,
			[]string{"table inet f, chain i, handle 4: 18",
				"moved by as much"}, []string{"events alone"}, event.ConfidenceProven},
		{"events were missed", counted(ruledOutBy(0, rule(3590, "input", "")), 3600), 1,
			[]string{"counted 10 packets more"}, []string{"events alone"},
			event.ConfidenceProven},
		{"nothing counts", ruledOutBy(0, rule(18, "input", "")), 1,
			[]string{"events alone"}, nil, event.ConfidenceProven},
		{"ingress", ruledOutBy(0, rule(18, "ingress", "netdev")), 1,
			[]string{"netfilter hook: ingress", "device: s0", "family: netdev",
				"device s0",
				"died: a rule of nftables, or its chain's policy, drops them"}, []string{"prerouting", "iptables", "reject", "the packet"}, event.ConfidenceProven},
		{"not known where", ruledOutBy(0, rule(18, "ingress or prerouting", "")), 1,
			[]string{"netfilter hook: ingress or prerouting", "inferred",
				"device: s0"}, nil, event.ConfidenceProven},
		{"two hooks", ruledOutBy(0, rule(18, "input", ""), rule(3, "prerouting", "")), 2,
			[]string{"netfilter hook: input",
				"netfilter hook: prerouting"}, nil, event.ConfidenceProven},
		{"some were held back", ruledOutBy(900, rule(18, "input", "")), 1,
			[]string{"not looked at one by one: 900"}, nil, event.ConfidenceProven},
		{"REJECT", ruledOutBy(0, reject(5, "icmp admin-prohibited")), 1,
			[]string{"REJECTs SYNs", "icmp admin-prohibited",
				"change the rule that rejects"}, []string{"icmp_ratelimit",
				"policy"}, event.ConfidenceProven},
		{"REJECT that ICMP's limit keeps silent",
			ruledOutBy(0, reject(6, "icmp port-unreachable"), rule(40, "input",
				"")), 1, []string{"REJECTs SYNs", "without an answer: 40", "icmp_ratelimit"}, nil, event.ConfidenceProven},
		{"nobody reads the queue", ruledOutBy(0, evidence.Death{Count: 9,
			Enter: evidence.Enter{Name: "web"},
			Kernel: event.Kernel{Function: "nf_queue",
				Hook: "input"}}), 1, []string{"NFQUEUE", "bypass", "ip netns exec web cat /proc/net/netfilter/nfnetlink_queue"}, []string{"change the rule"}, event.ConfidenceProven},
		{"the reader refuses", ruledOutBy(0, evidence.Death{Count: 9,
			Kernel: event.Kernel{Function: "nfqnl_reinject",
				Hook: "ingress or prerouting"}}), 1, []string{"refuses SYNs"}, []string{"change the rule"}, event.ConfidenceProven},
		{"the table is full", tracking(ruledOutBy(0, slow(38, "prerouting")), full), 1,
			[]string{"connection tracking table is full", "nf_conntrack_max: 6",
				"nf_conntrack_count: 6", "nf_conntrack_max to 12 (now 6)",
				"sysctl -w net.netfilter.nf_conntrack_max=12"}, []string{"change the rule", "hashsize"}, event.ConfidenceProven},
		{"the table is full, and the rate limit held some back",
			tracking(ruledOutBy(20, slow(18, "prerouting")), full), 1,
			[]string{"connection tracking table is full"}, []string{"change the rule"},
			event.ConfidenceLikely},
		{"the table is full, and its chains would grow long",
			tracking(ruledOutBy(0, slow(38, "prerouting")),
				evidence.Conntrack{Count: 262144, Max: 262144, Buckets: 65536,
					Drops: 38}), 1,
			[]string{"sysctl -w net.netfilter.nf_conntrack_max=524288; echo 131072 > /sys"}, nil, event.ConfidenceProven},
		{"the table was full", tracking(ruledOutBy(0, slow(38, "prerouting")),
			evidence.Conntrack{Count: 3, Max: 6,
				Drops: 38}), 1, []string{"at the end it held 3"}, nil, event.ConfidenceProven},
		{"the table is full, and a rule drops as well",
			tracking(ruledOutBy(0, slow(40, "prerouting")), evidence.Conntrack{Count: 6,
				Max: 6, Drops: 30}), 2,
			[]string{"connection tracking table is full",
				"change the rule"}, nil, event.ConfidenceProven},
		{"tracking drops others, and nftables these",
			tracking(ruledOutBy(0, rule(18, "prerouting", "")),
				full), 1, []string{"change the rule"}, []string{"nf_conntrack_max"}, event.ConfidenceProven},
		{"NAT has no port", tracking(ruledOutBy(0, slow(9, "postrouting")),
			evidence.Conntrack{Count: 3, Max: 600, Drops: 9,
				InsertFailed: 9}), 1, []string{"NAT has no free port"}, []string{"change the rule", "nf_conntrack_max to"}, event.ConfidenceProven},
	} {
		d := Diagnose(c.e)
		text := d.Verdict
		for _, f := range d.Findings {
			if f.ID != event.FindingDroppedBeforeListener {
				t.Errorf("%s: %s", c.name, f.ID)
			}
			text += "\n" + f.Title + "\n" + strings.Join(f.Fix, "\n")
			for _, ev := range f.Evidence {
				text += fmt.Sprintf("\n%s: %v", ev.What, ev.Value)
			}
		}
		if len(d.Findings) != c.findings || d.Findings[0].Confidence != c.sure {
			t.Errorf("%s: %d findings, %s; want %d, %s", c.name, len(d.Findings),
				d.Findings[0].Confidence, c.findings, c.sure)
		}
		for _, s := range c.says {
			if !strings.Contains(text, s) {
				t.Errorf("%s: does not say %q: %s", c.name, s, text)
			}
		}
		if i := slices.IndexFunc(c.not, func(s string) bool {
			return strings.Contains(text,
				s)
		}); i >= 0 {
			t.Errorf("%s: says %q: %s", c.name, c.not[i], text)
		}
	}
}

// TestHeldInQueue: packets that wait for a program's verdict are neither drops nor arrivals.
func TestHeldInQueue(t *testing.T) {
	e := evidenceOf(listener(128, rate(10, 0), rate(10, 100)))
	e.Queues = []evidence.PacketQueue{{Number: 3, PortID: 812, Comm: "suricata", Waiting: 40},
		{Number: 4, PortID: 9}}
	d := Diagnose(e)
	if f := d.Findings[0]; f.ID != event.FindingNoSynArrived ||
		f.Confidence == event.ConfidenceProven || !strings.Contains(d.Verdict,
		"40 packets wait in netfilter queue 3") ||
		strings.Contains(d.Verdict, "IP stack") || strings.Contains(d.Verdict, "queue 4") {
		t.Errorf("%s %+v", d.Verdict, d.Findings)
	}
}
