// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// killed is a window in which packets died as these say.
func killed(deaths ...evidence.Death) *evidence.Evidence {
	e := &evidence.Evidence{WindowMs: 1000, Tells: event.TellingReasons(), Ingress: deaths}
	for _, d := range deaths {
		e.Counts = event.AddCount(e.Counts, event.Count{Cause: d.Cause,
			Stage: event.StageIngress, Action: event.ActionDropped, Count: d.Count})
	}
	return e
}

// death is of eight packets for port 443 of a server, in the namespace web.
func death(cause event.Cause, function, reason string,
	change func(*evidence.Death)) evidence.Death {
	d := evidence.Death{Cause: cause, Action: event.ActionDropped,
		Server: event.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443},
		NetNS:  4026532000, Enter: evidence.Enter{Name: "web",
			PID: 812}, Device: "eth0", Kernel: event.Kernel{Function: function, Reason: reason}, Count: 8}
	if change != nil {
		change(&d)
	}
	return d
}

// TestReasonFindings: what died for a reason with a setting of its own is told with that setting's
// place, its present value, and the command that changes it.
func TestReasonFindings(t *testing.T) {
	setTo := func(values ...string) func(*evidence.Death) {
		return func(d *evidence.Death) {
			d.Sysctls = make(map[string]string)
			for i := 0; i < len(values); i += 2 {
				d.Sysctls[values[i]] = values[i+1]
			}
		}
	}
	other := event.CauseKernelOther
	for _, tt := range []struct {
		name   string
		death  evidence.Death
		id     event.FindingID
		owner  string
		says   []string // parts of the title, the fixes and the evidence, in one text
		silent []string
	}{
		{"route_localnet", death(other, "ip_rcv_finish_core", "IP_LOCALNET",
			setTo("net.ipv4.conf.eth0.route_localnet", "0",
				"net.ipv4.conf.all.route_localnet", "0")),
			event.FindingOtherDrops, "node", []string{"Loopback address",
				"set net.ipv4.conf.eth0.route_localnet to 1 (now 0)",
				"ip netns exec web sysctl -w net.ipv4.conf.eth0.route_localnet=1",
				"network namespace: web"}, nil},
		{"it is on by now, of all devices", death(other, "ip_rcv_finish_core",
			"IP_LOCALNET", setTo("net.ipv4.conf.eth0.route_localnet", "0",
				"net.ipv4.conf.all.route_localnet", "1")),
			event.FindingOtherDrops, "node",
			[]string{"net.ipv4.conf.eth0.route_localnet: 1"},
			[]string{"set net."}},
		{"nobody could read it", death(other, "ip_rcv_finish_core", "IP_LOCALNET",
			func(d *evidence.Death) { d.Device, d.Enter = "", evidence.Enter{} }),
			event.FindingOtherDrops, "node",
			[]string{"set net.ipv4.conf.all.route_localnet to 1 in ",
				"sysctl -w net.ipv4.conf.all.route_localnet=1, in network namespace 4026532000"},
			[]string{"(now", "device:"}},
		{"accept_local", death(other, "ip_rcv_finish_core", "IP_LOCAL_SOURCE",
			setTo("net.ipv4.conf.eth0.accept_local",
				"0")), event.FindingOtherDrops, "network",
			[]string{"arping -D -I eth0 10.0.0.1",
				"set net.ipv4.conf.eth0.accept_local to 1 (now 0)"}, nil},
		{"an address that is here", death(other, "ip_error", "IP_INADDRERRORS",
			func(d *evidence.Death) {
				d.Here = ptr(true)
			}), event.FindingOtherDrops, "node",
			[]string{"Address here", "ip rule show", "ip route show table local",
				"ip route get 10.0.0.1 from CLIENT iif eth0"},
			[]string{"moved", "give the address back", "forwarding",
				"ot this host's address"}},
		{"an address that moved", death(other, "ip_error", "IP_INADDRERRORS",
			func(d *evidence.Death) {
				d.Here = ptr(false)
				setTo("net.ipv4.conf.eth0.forwarding", "0")(d)
			}), event.FindingOtherDrops, "network",
			[]string{"Not this host's address", "ip address add 10.0.0.1 dev eth0",
				"set net.ipv4.conf.eth0.forwarding to 1 (now 0)"}, nil},
		{"disable_ipv6", death(other, "ip6_rcv_core", "IPV6DISABLED",
			func(d *evidence.Death) {
				d.Server.Addr = netip.MustParseAddr("2001:db8::1")
				setTo("net.ipv6.conf.eth0.disable_ipv6", "1")(d)
			}), event.FindingOtherDrops, "node", []string{
			"set net.ipv6.conf.eth0.disable_ipv6 to 0 (now 1)", "AAAA"}, nil},
		{"rp_filter", death(event.CauseRPFilter, "ip_rcv_finish_core", "IP_RPFILTER",
			setTo("net.ipv4.conf.eth0.rp_filter", "0", "net.ipv4.conf.all.rp_filter",
				"1")),
			event.FindingDroppedBeforeListener, "network",
			[]string{"set net.ipv4.conf.eth0.rp_filter to 2 (now 1)"},
			[]string{"rp_filter.*"}},
		{"a setting of the machine", death(event.CauseCPUBacklog, "enqueue_to_backlog",
			"CPU_BACKLOG", setTo("net.core.netdev_max_backlog", "1000")),
			event.FindingDroppedBeforeListener, "node", []string{"(now 1000)",
				"sysctl -w net.core.netdev_max_backlog=10000, in the machine's first network namespace"},
			[]string{"exec web sysctl"}},
		{"TIME_WAIT by timestamp", death(event.CauseTimeWait, "tcp_timewait_state_process",
			"TCP_RFC7323_TW_PAWS", setTo("net.ipv4.tcp_timestamps", "1")),
			event.FindingDroppedBeforeListener, "network", []string{"PAWS",
				"NAT"}, []string{"tcp_timestamps", "use TCP timestamps"}},
		{"TIME_WAIT by sequence number", death(event.CauseTimeWait,
			"tcp_timewait_state_process", "NOT_SPECIFIED",
			setTo("net.ipv4.tcp_timestamps", "0")),
			event.FindingDroppedBeforeListener, "client", []string{"sequence number",
				"set net.ipv4.tcp_timestamps to 1 (now 0)"}, []string{"PAWS"}},
		{"IPsec", death(event.CausePolicy, "tcp_v4_rcv", "XFRM_POLICY", nil),
			event.FindingDroppedBeforeListener, "platform", []string{"ip xfrm policy"},
			[]string{"MINTTL"}},
		{"minimum TTL", death(event.CausePolicy, "tcp_v4_rcv", "TCP_MINTTL", nil),
			event.FindingDroppedBeforeListener, "application", []string{"IP_MINTTL"},
			[]string{"xfrm"}},
		{"an old connection", death(other, "tcp_validate_incoming", "TCP_INVALID_SYN",
			func(d *evidence.Death) {
				d.Met, d.Holders = &event.Connection{State: "ESTAB"},
					[]event.Process{{PID: 7, Comm: "redis-server"}}
				setTo("net.ipv4.tcp_keepalive_time", "7200")(d)
			}), event.FindingOtherDrops, "client", []string{"established connection", "process that has it: redis-server (pid 7)", "challenge ACK", "set net.ipv4.tcp_keepalive_time to 300 (now 7200)"}, nil},
		{"one that nobody closes", death(other, "tcp_validate_incoming", "TCP_INVALID_SYN",
			func(d *evidence.Death) {
				d.Met, d.Holders = &event.Connection{State: "CLOSE-WAIT"},
					[]event.Process{{PID: 7, Comm: "java"}}
			}), event.FindingOtherDrops, "application", []string{"never closed", "java (pid 7)", "close() is to follow"}, []string{"keepalive"}},
		{"one whose process could not be asked for", death(other, "tcp_validate_incoming",
			"TCP_INVALID_SYN", func(d *evidence.Death) {
				d.Met, d.HoldersUnread = &event.Connection{State: "ESTAB"}, 3
			}), event.FindingOtherDrops, "client", []string{"3 processes could not (CAP_SYS_PTRACE)"}, []string{"none: the kernel"}},
		{"one that no process has", death(other, "tcp_validate_incoming", "TCP_INVALID_SYN",
			func(d *evidence.Death) { d.Met = &event.Connection{State: "FIN-WAIT-1"} }),
			event.FindingOtherDrops, "network", []string{"FIN-WAIT-1",
				"process that has it: none"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Diagnose(killed(tt.death))
			if len(d.Findings) != 1 || d.Findings[0].ID != tt.id ||
				d.Findings[0].Owner != tt.owner ||
				d.Findings[0].Confidence != event.ConfidenceProven {
				t.Fatalf("got %+v, want one %s for %s", d.Findings, tt.id, tt.owner)
			}
			f := d.Findings[0]
			complete(t, f)
			said := wholeText(f) + d.Verdict
			for _, part := range tt.says {
				if !strings.Contains(said, part) {
					t.Errorf("%q is missing in\n%s", part, said)
				}
			}
			for _, part := range append(tt.silent, "kernel.function", "kernel.reason",
				"JSON", "DEVICE.") {
				if strings.Contains(said, part) {
					t.Errorf("%q is in\n%s", part, said)
				}
			}
		})
	}
}

func wholeText(f event.Finding) string {
	lines := append([]string{f.Title}, f.Fix...)
	for _, ev := range f.Evidence {
		lines = append(lines, fmt.Sprintf("%s: %v", ev.What, ev.Value))
	}
	return strings.Join(lines, "\n")
}

// TestAddressNotRead: where nobody read the addresses, it is not proven that one is not here.
func TestAddressNotRead(t *testing.T) {
	d := Diagnose(killed(death(event.CauseKernelOther, "ip_error", event.NotOurAddress, nil)))
	if len(d.Findings) != 1 || d.Findings[0].Confidence != event.ConfidenceLikely ||
		!strings.Contains(wholeText(d.Findings[0]), "ip address show to 10.0.0.1") {
		t.Errorf("got %+v", d.Findings)
	}
}

// TestReasonPlaces: a setting is of one namespace and device, so deaths elsewhere are another
// finding; and what was not looked at one by one goes with the only reason there is, and with none
// where there are several.
func TestReasonPlaces(t *testing.T) {
	here := death(event.CauseKernelOther, "ip_rcv_finish_core", "IP_LOCALNET", nil)
	there := death(event.CauseKernelOther, "ip_rcv_finish_core", "IP_LOCALNET",
		func(d *evidence.Death) {
			d.NetNS, d.Enter, d.Count = 4026532999,
				evidence.Enter{Name: "db"}, 5
		})
	if d := Diagnose(killed(here, there)); len(d.Findings) != 2 ||
		!strings.Contains(wholeText(d.Findings[0]), "exec web ") ||
		!strings.Contains(wholeText(d.Findings[1]), "exec db ") {
		t.Errorf("two namespaces: %+v", d.Findings)
	}
	port := here
	port.Server.Port = 80
	if d := Diagnose(killed(here, port)); len(d.Findings) != 1 ||
		!strings.Contains(wholeText(d.Findings[0]), "packets: 16") {
		t.Errorf("two ports: %+v", d.Findings)
	}
	held := evidence.Death{Cause: event.CauseKernelOther, Action: event.ActionDropped,
		Count: 100}
	if d := Diagnose(killed(here, held)); len(d.Findings) != 1 || !strings.HasPrefix(d.Verdict,
		"108 ") {
		t.Errorf("some held back: %s, %+v", d.Verdict, d.Findings)
	}
	unknown := death(event.CauseKernelOther, "ip_rcv_core", "NOT_SPECIFIED", nil)
	if d := Diagnose(killed(here, unknown, held)); len(d.Findings) != 2 ||
		!slices.ContainsFunc(d.Findings,
			func(f event.Finding) bool {
				return f.Confidence == event.ConfidencePossible
			}) {
		t.Errorf("held back, and not the only reason: %+v", d.Findings)
	}
	var many []evidence.Death
	for i := range uint64(2 * rules.MaxReasons) {
		d := here
		d.NetNS += i
		many = append(many, d)
	}
	var n int
	for _, f := range Diagnose(killed(many...)).Findings {
		for _, ev := range f.Evidence {
			if ev.What == "packets" {
				n += int(ev.Value.(uint64))
			}
		}
	}
	if n != 2*rules.MaxReasons*8 {
		t.Errorf("%d packets in all findings, want %d", n, 2*rules.MaxReasons*8)
	}
}

// TestReasonSentences: no sentence is so long that a report cuts it, and none leaves open what is
// known.
func TestReasonSentences(t *testing.T) {
	for _, r := range event.Reasons() {
		if r.WhyNot != "" || evidence.TakenBefore(event.Kernel{Reason: r.Name}) {
			continue
		}
		d := death(event.CauseKernelOther, "f", r.Name, nil)
		f := rules.OfReason(&evidence.Evidence{Tells: event.TellingReasons()},
			event.FindingOtherDrops, []*evidence.Death{&d})
		for _, s := range append(f.Fix, f.Because) {
			if len(s) > 500 || strings.Contains(s, "DEVICE") || strings.Contains(s,
				"ADDRESS") {
				t.Errorf("%s: %q", r.Name, s)
			}
		}
	}
}

// TestChallenged: where the kernel frees SYNs on connections without a trace, its counter tells of
// them, and that no SYN arrived is not proven.
func TestChallenged(t *testing.T) {
	row := event.LedgerRow{NetNS: 7, Counter: "TCPSYNChallenge", Kernel: 9, Synspy: 2,
		Shared: true}
	silent := func(change func(*evidence.Evidence)) *evidence.Evidence {
		e := &evidence.Evidence{WindowMs: 1000, Ledger: []event.LedgerRow{row}}
		change(e)
		return e
	}
	d := Diagnose(silent(func(*evidence.Evidence) {}))
	if len(d.Findings) != 2 || d.Findings[0].ID != event.FindingNoSynArrived ||
		d.Findings[0].Confidence != event.ConfidencePossible ||
		!strings.HasPrefix(d.Findings[1].Title, "7 SYNs came on connections") {
		t.Errorf("%+v", d.Findings)
	}
	for _, f := range d.Findings {
		complete(t, f)
	}
	for name, e := range map[string]*evidence.Evidence{
		"a kernel that would tell": silent(func(e *evidence.Evidence) {
			e.Tells = event.TellingReasons()
		}),
		"all were seen": silent(func(e *evidence.Evidence) {
			e.Ledger[0].Synspy = 9
		}),
	} {
		if d := Diagnose(e); len(d.Findings) != 1 ||
			d.Findings[0].Confidence != event.ConfidenceProven {
			t.Errorf("%s: %+v", name, d.Findings)
		}
	}
}

// TestFillIn: what a reason says to run is run where the packet died, against a client that was
// seen.
func TestFillIn(t *testing.T) {
	d := death(event.CauseKernelOther, "f", "r", nil)
	e := &evidence.Evidence{Clients: []event.ClientCount{{Addr: "2001:db8::9", Drops: 9},
		{Addr: "203.0.113.0/24", Drops: 8}, {Addr: "203.0.113.7", Drops: 2}}}
	for from, want := range map[string]string{
		"see: ip route get ADDRESS from CLIENT iif DEVICE; unreachable routes say so": "see: ip netns exec web ip route get 10.0.0.1 from 203.0.113.7 iif eth0; unreachable routes say so",
		"if it is, ip rule and ip route show table local say":                         "if it is, ip netns exec web ip rule and ip netns exec web ip route show table local say",
		"by ip link show, or tcpdump at both ends":                                    "by ip link show, or tcpdump at both ends",
	} {
		if got := d.Fill(e, from); got != want {
			t.Errorf("%s\nbecame %s\nwant   %s", from, got, want)
		}
	}
	d.Enter = evidence.Enter{}
	if got, want := d.Fill(&evidence.Evidence{},
		"ip route get ADDRESS from CLIENT"), "ip route get 10.0.0.1 from CLIENT"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := e.Client(netip.IPv6Unspecified()); got != "2001:db8::9" {
		t.Errorf("of both families: %s", got)
	}
	for _, r := range event.Reasons() {
		if r.WhyNot != "" || evidence.TakenBefore(event.Kernel{Reason: r.Name}) {
			continue
		}
		d := death(event.CauseKernelOther, "f", r.Name, nil)
		for _, s := range rules.OfReason(&evidence.Evidence{Tells: event.TellingReasons()},
			event.FindingOtherDrops, []*evidence.Death{&d}).Fix {
			if at := evidence.InNetNS.FindString(s); at != "" {
				t.Errorf("%s: %q is run in another namespace: %s", r.Name, at, s)
			}
		}
	}
}
