// SPDX-License-Identifier: Apache-2.0

package event

import (
	"slices"
	"strings"
	"testing"
)

// allReasons are the rows of all tables.
func allReasons() []Reason {
	return append(slices.Concat(reasons, metStates), timeWaitSequence, routeRefused,
		sourceRouted, notForTCP)
}

// TestReasons: a reason has all that a finding needs, or says why it has nothing.
func TestReasons(t *testing.T) {
	seen := make(map[string]bool)
	owners := []string{"application", "platform", "node", "network", "client"}
	for _, r := range allReasons() {
		if r.Name != "" && seen[r.Name] {
			t.Errorf("%s is there twice", r.Name)
		}
		seen[r.Name] = true
		advice := slices.Concat(r.Fix, r.Else)
		if r.WhyNot != "" {
			if r.Title != "" || r.Explain != "" || len(advice) > 0 ||
				len(r.Settings) > 0 || r.Owner != "" {
				t.Errorf("%s says why not, and says more", r.Name)
			}
			continue
		}
		if r.Title == "" || r.Explain == "" || len(advice) == 0 ||
			!slices.Contains(owners, r.Owner) {
			t.Errorf("%s lacks something: %+v", r.Name, r)
		}
		for _, s := range append(advice, r.Title, r.Explain) {
			if strings.Contains(s, "kernel.function") ||
				strings.Contains(s, "kernel.reason") ||
				strings.Contains(s, "JSON") || strings.Contains(s, "  ") {
				t.Errorf("%s: %q", r.Name, s)
			}
			if strings.HasSuffix(s, ".") || len(s) > 300 {
				t.Errorf("%s: %q ends or does not end", r.Name, s)
			}
		}
		for _, s := range r.Settings {
			if s.Name == "" || s.Try == "" || s.Why == "" || s.With &&
				!strings.Contains(s.Name, "DEVICE") {
				t.Errorf("%s: %+v", r.Name, s)
			}
		}
	}
}

// TestReasonsTellBranches: a branch that needs a drop reason has one that leads to it, and a reason
// leads to branches that need it, at the stages that it is of.
func TestReasonsTellBranches(t *testing.T) {
	told := make(map[Outcome]bool)
	for _, r := range reasons {
		if r.NoLoss && r.Outcomes != (Outcomes{}) {
			t.Errorf("%s is no loss, and has outcomes", r.Name)
		}
		told[r.Outcomes.Syn], told[r.Outcomes.Ack] = true, true
		if r.Outcomes != (Outcomes{}) && r.Outcomes.Ack.Branch().Stage != StageAck {
			t.Errorf("%s: outcome %d is of no ACK", r.Name, r.Outcomes.Ack)
		}
	}
	for o := range NumOutcomes {
		b := o.Branch()
		if b.Needs&NeedReason != 0 && b.Needs&NeedAnswers == 0 && !told[o] {
			t.Errorf("outcome %d, %v: no drop reason leads to it (Outcomes in reason.go)", o, b.Cause)
		}
	}
}

// TestPAWSAdvice: what timestamps refuse is not cured by timestamps.
func TestPAWSAdvice(t *testing.T) {
	for _, r := range allReasons() {
		if !strings.Contains(r.Title, "PAWS") {
			continue
		}
		for _, s := range slices.Concat(r.Fix, r.Else) {
			if strings.Contains(s, "timestamps=1") ||
				strings.Contains(s, "use TCP timestamps") {
				t.Errorf("%s: %q", r.Name, s)
			}
		}
		if len(r.Settings) > 0 {
			t.Errorf("%s: settings", r.Name)
		}
	}
	all, none := func(string) bool { return true }, func(string) bool { return false }
	if r, ok := ReasonFor(CauseTimeWait, Kernel{Reason: "NOT_SPECIFIED"}, false, "",
		all); !ok || r.Title != timeWaitSequence.Title {
		t.Errorf("by sequence: %+v", r)
	}
	if r, ok := ReasonFor(CauseTimeWait, Kernel{Reason: "NOT_SPECIFIED"}, false, "", none); ok {
		t.Errorf("a kernel that does not tell them apart: %+v", r)
	}
	if strings.Contains(CauseTimeWait.Info().Fix, "enable TCP timestamps") {
		t.Error(CauseTimeWait.Info().Fix)
	}
}

// TestReasonFor: which row tells of what.
func TestReasonFor(t *testing.T) {
	for _, tt := range []struct {
		name     string
		kernel   Kernel
		loopback bool
		met      string
		names    bool   // the kernel names its telling reasons
		want     string // title
	}{
		{"by reason", Kernel{Function: "ip_rcv_finish_core", Reason: "IP_LOCALNET"}, true,
			"", true, "loopback address from outside"},
		{"one that says nothing", Kernel{Function: "ip_rcv_core", Reason: "NOT_SPECIFIED"},
			false, "", true, ""},
		{"TCP that says nothing", Kernel{Function: "tcp_v4_rcv", Reason: "NOT_SPECIFIED"},
			false, "", true, "nothing for TCP"},
		{"TCP before reasons", Kernel{Function: "tcp_v4_rcv"}, false, "", false, ""},
		{"IP options", Kernel{Function: "ip_rcv_finish_core", Reason: "NOT_SPECIFIED"},
			true, "", true, "source route refused"},
		{"IPv6 options", Kernel{Function: "ip6_tlvopt_unknown", Reason: "UNHANDLED_PROTO"},
			false, "", true, "bad IPv6 extension header"},
		{"a protocol",
			Kernel{Function: "__netif_receive_skb_core", Reason: "UNHANDLED_PROTO"},
			false, "", true, "nobody takes such packets"},
		{"one that another part tells of", Kernel{Reason: "NO_SOCKET"}, false, "", true,
			""},
		{"one that nobody knows", Kernel{Reason: "OF_TOMORROW"}, false, "", true, ""},
		{"a connection", Kernel{Reason: "TCP_INVALID_SYN"}, false, "CLOSE-WAIT", true,
			"SYN on a connection that the server never closed"},
		{"one in a state that is not known", Kernel{Reason: "TCP_INVALID_SYN"}, false, "",
			true, "SYN on an old connection"},
		{"and in one that is not in the table", Kernel{Reason: "TCP_INVALID_SYN"}, false,
			"SYN-SENT", true, "SYN on an old connection"},
		{"before reasons, for loopback", Kernel{Function: "ip_rcv_finish_core.isra.0"},
			true, "", false, "loopback address from outside"},
		{"before reasons, else", Kernel{Function: "ip_rcv_finish_core.constprop.0"}, false,
			"", false, "refused by the route lookup"},
		{"IPv6 that is not forwarded",
			Kernel{Function: "ip6_forward", Reason: "NOT_SPECIFIED"}, false, "", true,
			"not this host's address"},
	} {
		r, ok := ReasonFor(CauseKernelOther, tt.kernel, tt.loopback, tt.met,
			func(string) bool { return tt.names })
		if ok != (tt.want != "") || r.Title != tt.want && ok {
			t.Errorf("%s: %q, %v", tt.name, r.Title, ok)
		}
	}
}

// TestSettingNames: a setting is one of a device and a family.
func TestSettingNames(t *testing.T) {
	s := Setting{Name: "net.IPv.conf.DEVICE.forwarding", With: true}
	for _, tt := range []struct {
		device    string
		v6        bool
		name, all string
	}{
		{"eth0", false, "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.all.forwarding"},
		{"eth0.100", true, "net.ipv6.conf.eth0/100.forwarding",
			"net.ipv6.conf.all.forwarding"},
		{"", false, "net.ipv4.conf.all.forwarding", ""},
	} {
		if name, all := s.For(tt.device, tt.v6); name != tt.name || all != tt.all {
			t.Errorf("%+v: %s, %s", tt, name, all)
		}
	}
	s = Setting{Name: "net.core.netdev_max_backlog"}
	if name, all := s.For("eth0", true); name != s.Name || all != "" {
		t.Errorf("%s, %s", name, all)
	}
}
