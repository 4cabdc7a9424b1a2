// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestPassedBy: a listener that has the port of refused SYNs is named, with why the kernel's lookup
// passed it by and what to change; nothing is proven then, and nobody is told to start what runs.
func TestPassedBy(t *testing.T) {
	yes, no := true, false
	on := func(addr string) event.Listener {
		return event.Listener{Addr: netip.MustParseAddr(addr), Port: 443, NetNS: 4026531840}
	}
	for name, test := range map[string]struct {
		to    string
		death evidence.Death
		is    evidence.Elsewhere
		why   string
		fix   string
	}{
		"IPv6 only": {"10.0.0.1", evidence.Death{},
			evidence.Elsewhere{Listener: on("::"),
				V6Only: &yes}, "is for IPv6 only", "IPV6_V6ONLY"},
		"an IPv6 address": {"10.0.0.1", evidence.Death{},
			evidence.Elsewhere{Listener: on("fd00::1"),
				V6Only: &no}, "is for IPv6 only", "0.0.0.0:443"},
		"IPv4 only": {"fd00::1", evidence.Death{},
			evidence.Elsewhere{Listener: on("0.0.0.0")}, "is for IPv4 only",
			"[::]:443"},
		"loopback": {"10.0.0.1", evidence.Death{},
			evidence.Elsewhere{Listener: on("127.0.0.1")},
			"is bound to 127.0.0.1, which only this host", "10.0.0.1"},
		"loopback, v4-mapped": {"10.0.0.1", evidence.Death{},
			evidence.Elsewhere{Listener: on("::ffff:127.0.0.1"),
				V6Only: &no}, "is bound to 127.0.0.1", "10.0.0.1"},
		"another address": {"10.0.0.1", evidence.Death{},
			evidence.Elsewhere{Listener: on("10.0.0.2")},
			"is bound to the address 10.0.0.2", "bind it to 10.0.0.1"},
		"a device": {"10.0.0.1", evidence.Death{Device: "eth0"},
			evidence.Elsewhere{Listener: on("0.0.0.0"),
				Device: "eth1"}, "is bound to device eth1 (SO_BINDTODEVICE), and these SYNs came in by eth0", "bind it to eth0, or to no device: its SO_BINDTODEVICE, BindToDevice="},
		"a device, unknown": {"10.0.0.1", evidence.Death{},
			evidence.Elsewhere{Listener: on("0.0.0.0"),
				Device: "eth1"}, "is bound to device eth1 (SO_BINDTODEVICE)", "bind it to no device"},
		"a VRF": {"10.0.0.1", evidence.Death{Device: "eth0"},
			evidence.Elsewhere{Listener: on("0.0.0.0"), Device: "red",
				VRF: true}, "is bound to a VRF by its device red", "ip vrf exec"},
		"out of a VRF": {"10.0.0.1", evidence.Death{Device: "red", VRF: true},
			evidence.Elsewhere{Listener: on("0.0.0.0")}, "is in no VRF",
			"tcp_l3mdev_accept=1"},
		"its device, and more": {"10.0.0.1", evidence.Death{Device: "eth0"},
			evidence.Elsewhere{Listener: on("10.0.0.2"),
				Device: "eth0"}, "is bound to the address 10.0.0.2", "10.0.0.1"},
		"a program": {"10.0.0.1", evidence.Death{},
			evidence.Elsewhere{Listener: on("0.0.0.0"),
				Throughout: true}, "listened all the time, and nothing in its address or device stands in their way: a program", "bpftool link show"},
		"nothing in its way": {"10.0.0.1", evidence.Death{Device: "eth0"},
			evidence.Elsewhere{Listener: on("0.0.0.0")},
			"may have begun to listen later", "watch again"},
	} {
		t.Run(name, func(t *testing.T) {
			e := ingress(event.CauseNoListener, event.ActionReset, 12, []uint16{443})
			e.Ingress[0].Server.Addr = netip.MustParseAddr(test.to)
			e.Ingress[0].Device, e.Ingress[0].VRF = test.death.Device, test.death.VRF
			test.is.Processes = []event.Process{{PID: 812, Comm: "nginx"}}
			e.Elsewhere = append(e.Elsewhere, test.is)
			d := Diagnose(e)
			f := d.Findings[0]
			if f.ID != event.FindingNoListener ||
				f.Confidence == event.ConfidenceProven || f.Listener == nil ||
				f.Owner != "application" {
				t.Errorf("%s, %s, of %v, for %s", f.ID, f.Confidence, f.Listener,
					f.Owner)
			}
			for _, text := range []string{d.Verdict, f.Title} {
				if !strings.Contains(text, "of nginx (pid 812)") ||
					!strings.Contains(text, test.why) {
					t.Errorf("%q does not say that nginx %s", text, test.why)
				}
			}
			fix := strings.Join(f.Fix, "; ")
			if !strings.Contains(fix, test.fix) || strings.Contains(fix,
				"start the service") {
				t.Errorf("the fix is %s", fix)
			}
		})
	}
}
