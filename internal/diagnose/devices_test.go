// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// devices has one program of each kind, in synspy's own namespace.
func devices() []evidence.Device {
	return []evidence.Device{
		{Name: "eth0", Programs: []evidence.Program{{Hook: "native XDP", ID: 37,
			Name: "lb"}}},
		{Name: "eth1", Programs: []evidence.Program{{Hook: "tc ingress", ID: 40},
			{Hook: "tc ingress", Filter: "flower"}, {Hook: "tc ingress", Filter: "u32",
				Redirect: true}}},
		{Name: "eth2", Programs: []evidence.Program{{Hook: "generic XDP", ID: 41,
			Name: "guard"}, {Hook: "tcx ingress", ID: 42, Name: "cni"}}},
	}
}

// taken are so many SYNs that died before any listener, at each of these places.
func taken(n uint64, at ...event.Kernel) *evidence.Evidence {
	e := &evidence.Evidence{WindowMs: 1000, Devices: devices()}
	for _, k := range at {
		e.Counts = event.AddCount(e.Counts, event.Count{Cause: event.CauseKernelOther,
			Stage: event.StageIngress, Action: event.ActionDropped, Count: n})
		e.Ingress = append(e.Ingress, evidence.Death{Cause: event.CauseKernelOther,
			Action: event.ActionDropped, Kernel: k, Count: n})
	}
	return e
}

// TestPrograms: programs are named where nothing arrived, and where the kernel says that one
// dropped what did; nowhere else.
func TestPrograms(t *testing.T) {
	generic := event.Kernel{Function: "do_xdp_generic", Reason: "NOT_SPECIFIED"}
	byTC := event.Kernel{Function: "__netif_receive_skb_core.constprop.0", Reason: "TC_INGRESS"}
	silent := func(change func(*evidence.Evidence)) *evidence.Evidence {
		e := &evidence.Evidence{WindowMs: 1000, Devices: devices(),
			DevicesRead: ptr(uint64(3))}
		change(e)
		return e
	}
	arrived := evidenceOf(healthyListener())
	arrived.Devices = devices()
	redirected := evidenceOf(healthyListener())
	redirected.Devices = []evidence.Device{{Name: "eth0",
		Programs: []evidence.Program{{Hook: "netdev ingress", Filter: "nftables",
			Redirect: true}}}}
	unread := evidenceOf(healthyListener())
	unread.Missing = []evidence.Gap{{Need: evidence.NeedDevices,
		Why: "operation not permitted"}}
	on := func(e *evidence.Evidence,
		l event.Count) *evidence.Evidence {
		e.Counts = append(e.Counts, l)
		return e
	}
	all := []string{"native XDP program on eth0: lb (id 37)",
		"tc ingress program on eth1: id 40",
		"tc ingress filter on eth1: flower, drops what it matches",
		"tc ingress filter on eth1: u32, redirects what it matches to another device",
		"generic XDP program on eth2: guard (id 41)", "tcx ingress program on eth2: cni (id 42)"}
	const none, unknown = "devices read, with no XDP or tc program in the way of SYNs: ",
		"XDP and tc programs not known: "
	for _, tt := range []struct {
		name       string
		e          *evidence.Evidence
		want       event.FindingID
		confidence event.Confidence
		names      []string
	}{
		{"nothing arrived", silent(func(*evidence.Evidence) {}), event.FindingNoSynArrived,
			event.ConfidenceProven, all},
		{"nothing arrived, and nothing is there",
			silent(func(e *evidence.Evidence) {
				e.Devices = nil
			}), event.FindingNoSynArrived, event.ConfidenceProven,
			[]string{none + "3"}},
		{"nothing arrived, and nobody looked", silent(func(e *evidence.Evidence) {
			e.Devices, e.DevicesRead, e.Missing = nil, nil,
				[]evidence.Gap{{Need: evidence.NeedDevices, Why: "a file has none"},
					{Need: evidence.NeedSynAcks, Why: "not watched"}}
		}), event.FindingNoSynArrived, event.ConfidenceProven, []string{unknown +
			"a file has none"}},
		{"nothing arrived, and only some could be read", silent(func(e *evidence.Evidence) {
			e.Devices, e.Missing = e.Devices[:1],
				[]evidence.Gap{
					{Need: evidence.NeedDevices, Why: "operation not permitted"}}
		}), event.FindingNoSynArrived, event.ConfidenceProven, []string{all[0], unknown +
			"operation not permitted"}},
		{"SYNs arrived", arrived, event.FindingHealthy, event.ConfidenceLikely, all},
		{"SYNs arrived, and the devices may not be read", unread, event.FindingHealthy,
			event.ConfidenceLikely,
			[]string{unknown + "operation not permitted"}},
		{"SYNs arrived, and a rule redirects", redirected, event.FindingHealthy,
			event.ConfidenceLikely,
			[]string{"netdev ingress chain of nftables on eth0: a rule (fwd) that sends what it matches to another device"}},
		{"generic XDP dropped", taken(9, generic), event.FindingOtherDrops,
			event.ConfidenceProven, []string{all[0], all[4]}},
		{"before 5.17 as well",
			taken(9,
				event.Kernel{Function: "netif_receive_generic_xdp.isra.0"}), event.FindingOtherDrops, event.ConfidenceProven,
			[]string{all[0], all[4]}},
		{"tc dropped", taken(9, byTC), event.FindingOtherDrops, event.ConfidenceProven,
			[]string{all[1], all[2], all[5]}},
		{"both dropped", taken(9, byTC, generic), event.FindingOtherDrops,
			event.ConfidenceProven, slices.Concat(all[:3], all[4:])},
		{"something in the function that runs tc dropped",
			taken(9, event.Kernel{Function: byTC.Function, Reason: "UNHANDLED_PROTO"}),
			event.FindingOtherDrops, event.ConfidenceProven, nil},
		{"something else dropped some", taken(9, generic,
			event.Kernel{Function: "ip_rcv_core", Reason: "NOT_SPECIFIED"}),
			event.FindingOtherDrops, event.ConfidencePossible, nil},
		{"not every packet has a record", on(taken(9, generic),
			event.Count{Cause: event.CauseKernelOther, Stage: event.StageIngress,
				Action: event.ActionDropped, Count: 1}),
			event.FindingOtherDrops, event.ConfidencePossible, nil},
		{"some died at a listener", on(taken(9, generic),
			event.Count{Cause: event.CauseKernelOther, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: 1}),
			event.FindingOtherDrops, event.ConfidencePossible, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Diagnose(tt.e)
			if len(d.Findings) == 0 || d.Findings[0].ID != tt.want ||
				d.Findings[0].Confidence != tt.confidence {
				t.Fatalf("got %+v, want %s, %s", d.Findings, tt.confidence, tt.want)
			}
			f := d.Findings[0]
			complete(t, f)
			var names []string
			for _, ev := range f.Evidence {
				what := fmt.Sprintf("%s: %v", ev.What, ev.Value)
				if strings.Contains(what, "XDP") || strings.Contains(what,
					"netdev") || strings.Contains(what, "tc") &&
					!strings.HasPrefix(what, "kernel") {
					names = append(names, what)
				}
			}
			if diff := cmp.Diff(tt.names, names); diff != "" {
				t.Errorf("named (-want +got):\n%s", diff)
			}
			programs := slices.ContainsFunc(tt.names,
				func(s string) bool { return strings.Contains(s, " on eth") })
			fixes := strings.Join(f.Fix, "; ")
			if looks := strings.Contains(fixes, "bpftool net show dev eth") ||
				strings.Contains(fixes,
					"nft list ruleset netdev"); looks != programs {
				t.Errorf("the fixes are %q", f.Fix)
			}
			if says := strings.Contains(d.Verdict, "look at"); says != (programs &&
				tt.want == event.FindingNoSynArrived) {
				t.Errorf("the verdict is %q", d.Verdict)
			}
		})
	}
}

// TestManyPrograms: a node with a hundred containers has hundreds, and a finding stays readable.
func TestManyPrograms(t *testing.T) {
	e := &evidence.Evidence{WindowMs: 1000, DevicesRead: ptr(uint64(101))}
	for i := range 100 {
		e.Devices = append(e.Devices, evidence.Device{Name: fmt.Sprintf("lxc%d", i),
			Programs: []evidence.Program{{Hook: "tc ingress", ID: 9,
				Name: "cil_from_contai"}, {Hook: "tc egress", ID: 9}}})
	}
	d := Diagnose(e)
	f := d.Findings[0]
	if got := f.Evidence[len(f.Evidence)-1]; got.What != "further programs on devices" ||
		got.Value != 200-rules.MaxPrograms {
		t.Errorf("the last evidence is %+v", got)
	}
	if len(f.Evidence) > 20 || len(f.Fix) > 10 {
		t.Errorf("%d lines of evidence and %d fixes", len(f.Evidence), len(f.Fix))
	}
	if want := "look at tc ingress on lxc0, tc egress on lxc0, tc ingress on lxc1 and 197 more first."; !strings.HasSuffix(d.Verdict, want) {
		t.Errorf("the verdict is %q", d.Verdict)
	}
}

// TestLook: commands run where the device is, and hold no name that a shell would take for more
// than a name.
func TestLook(t *testing.T) {
	const xdp, tc = "native XDP", "tc ingress"
	for _, tt := range []struct {
		device evidence.Device
		want   string
	}{
		{evidence.Device{Name: "eth0", Programs: []evidence.Program{{Hook: xdp}}},
			"bpftool net show dev eth0; ip -d link show dev eth0"},
		{evidence.Device{Name: "bond0.10@x", Programs: []evidence.Program{{Hook: tc},
			{Hook: tc}, {Hook: "tcx ingress"}}},
			"bpftool net show dev bond0.10@x; tc filter show dev bond0.10@x ingress"},
		{evidence.Device{Name: "lxc1", Programs: []evidence.Program{{Hook: "tc egress"}}},
			"bpftool net show dev lxc1; tc filter show dev lxc1 egress"},
		{evidence.Device{Name: "eth0", NetNS: 7, Enter: evidence.Enter{Name: "blue",
			PID: 812}, Programs: []evidence.Program{{Hook: xdp}}},
			"ip netns exec blue bpftool net show dev eth0; ip netns exec blue ip -d link show dev eth0"},
		{evidence.Device{Name: "eth0", NetNS: 7, Enter: evidence.Enter{Name: "$(reboot)",
			PID: 812}, Programs: []evidence.Program{{Hook: "netkit"}}},
			"nsenter -t 812 -n bpftool net show dev eth0"},
		{evidence.Device{Name: "eth0", NetNS: 7,
			Programs: []evidence.Program{{Hook: "tcx ingress"}}}, "in network namespace 7, bpftool net show dev eth0"},
		{evidence.Device{Name: "`reboot`", Programs: []evidence.Program{{Hook: xdp}, {Hook: tc}}}, "bpftool net show; ip -d link show"},
		{evidence.Device{Name: "-all", Programs: []evidence.Program{{Hook: xdp}}},
			"bpftool net show; ip -d link show"},
		{evidence.Device{Name: "a;b", Programs: []evidence.Program{{Hook: tc}}},
			"bpftool net show"},
		{evidence.Device{Name: "é", Programs: []evidence.Program{{Hook: tc}}},
			"bpftool net show"},
	} {
		if got := tt.device.ShowCommands(rules.AnyProgram); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.device.Name, got, tt.want)
		}
	}
}
