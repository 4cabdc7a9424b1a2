// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/diagnose/rules"
	"github.com/synspy/synspy/internal/event"
)

// TestWord: a shell takes a quoted name as that name, and nothing else.
func TestWord(t *testing.T) {
	for _, name := range []string{"eth0.100@if2", "$(id)", "x;id", "`id`", "x';id;'", "a b", "net.ipv4.conf.$(id).forwarding=1", "/a/(b)/c", "~", "*", "\"", "\\", "#x", "x\nid"} {
		if out, err := exec.Command("sh", "-c",
			"printf %s "+evidence.Word(name)).CombinedOutput(); err != nil ||
			string(out) != name {
			t.Errorf("%q became %q, which a shell takes as %q: %v", name,
				evidence.Word(name), out, err)
		}
	}
	if evidence.Word("eth0") != "eth0" || evidence.Said("nginx: worker") != "nginx: worker" ||
		evidence.Said("a b;id") != "'a b;id'" {
		t.Error("what needs no quotes has some, or the reverse")
	}
}

// namesFromOutside are fields whose text somebody else chose.
var namesFromOutside = []string{"Comm", "Name", "Path", "Dir", "Device", "Table", "Chain", "Script",
	"Title", "Namespace", "Container", "By"}

// rename gives all that is named from outside another name.
func rename(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			rename(v.Elem(), name)
		}
	case reflect.Slice:
		for i := range v.Len() {
			rename(v.Index(i), name)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field, of := v.Field(i), v.Type().Field(i)
			switch {
			case !of.IsExported() || v.Type() == reflect.TypeFor[event.LedgerRow]() &&
				of.Name == "Counter":
			case field.Kind() == reflect.String && slices.Contains(namesFromOutside,
				of.Name):
				field.SetString(name)
			default:
				rename(field, name)
			}
		}
	default:
	}
}

// TestNamesInText: whoever names a device, a namespace, a cgroup, a process or a table puts no
// command of theirs into text that is to be pasted.
func TestNamesInText(t *testing.T) {
	pods := event.Process{PID: 812, Comm: "x", Pod: &event.Pod{Namespace: "x", Name: "x",
		UID: "u1", Container: "x"}, Cgroup: &event.Cgroup{Path: "/x"}}
	docker := event.Process{PID: 812, Comm: "x", Container: &event.Container{Runtime: "docker",
		ID: "abc", Name: "x"}}
	list := []*evidence.Evidence{}
	for _, reason := range event.TellingReasons() {
		for _, enter := range []evidence.Enter{{PID: 812}, {Name: "x"}, {}} {
			d := death(event.CauseKernelOther, "f", reason, func(d *evidence.Death) {
				d.Enter, d.Met, d.Holders = enter,
					&event.Connection{State: "ESTAB"}, []event.Process{pods}
			})
			list = append(list, killed(d))
		}
	}
	ruled := killed(death(event.CauseNetfilter, "nft_do_chain", "NETFILTER_DROP",
		func(d *evidence.Death) { d.Kernel.Family, d.Kernel.Hook = "netdev", "ingress" }))
	ruled.Rules = []evidence.FirewallRule{{NetNS: 4026532000, Family: "netdev", Table: "x",
		Chain: "x", Handle: 3, Packets: 8}}
	ruled.Queues = []evidence.PacketQueue{{Number: 1, Comm: "x", Waiting: 3}}
	bound := killed(death(event.CauseNoListener, "tcp_v4_rcv", "NO_SOCKET",
		func(d *evidence.Death) { d.VRF = true }))
	for _, dev := range []string{"", "eth9"} {
		bound.Elsewhere = append(bound.Elsewhere,
			evidence.Elsewhere{Listener: event.Listener{Addr: netip.IPv4Unspecified(),
				Port: 443, NetNS: 4026532000}, Device: dev, Processes: []event.Process{docker}})
	}
	taken := taken(8, event.Kernel{Function: "do_xdp_generic"},
		event.Kernel{Function: "__netif_receive_skb_core", Reason: "TC_INGRESS"})
	for i := range taken.Devices {
		taken.Devices[i].NetNS, taken.Devices[i].Enter = 4026532000,
			evidence.Enter{Name: "x", PID: 7}
	}
	list = append(list, ruled, bound, taken)
	checked := 0
	for _, name := range []string{"$(id)", "x;id"} {
		quoted := regexp.MustCompile(`'[^']*` + regexp.QuoteMeta(name) + `[^']*'`)
		check := func(text string) {
			checked += strings.Count(text, name)
			if strings.Contains(quoted.ReplaceAllString(text, ""), name) {
				t.Errorf("not quoted: %s", text)
			}
		}
		for _, e := range list {
			rename(reflect.ValueOf(e), name)
			for _, f := range Diagnose(e).Findings {
				for _, k := range f.Knobs {
					check(k.Name)
					check(k.Where)
				}
				for _, ev := range f.Evidence {
					check(ev.What)
					check(fmt.Sprint(ev.Value))
				}
				for _, s := range f.Fix {
					check(s)
				}
			}
		}
		for _, p := range []event.Process{pods, docker} {
			for _, unit := range []string{"", ".service"} {
				l, who := healthyListener(), p
				rename(reflect.ValueOf(&who), name)
				cpu := evidence.CPU{Cgroup: event.Cgroup{Path: "/x" + name + unit},
					Dir: "/sys/fs/cgroup/x" + name +
						unit, QuotaUs: ptr(uint64(5)), PeriodUs: ptr(
						uint64(10))}
				check(advice.SysctlKnob(&l, "net.core.somaxconn", nil, 512,
					[]event.Process{who}, "").Where)
				check(advice.ListenKnob(&l, []event.Process{who}, 512, "").Where)
				check(advice.QuotaKnob(cpu, []event.Process{who}, "").Where)
				cpu.Cgroup.Path = ""
				check(advice.QuotaKnob(cpu, []event.Process{who}, "").Where)
				cpu.Dir = ""
				cpu.Cgroup.Path = "/x" + name + unit
				check(advice.QuotaKnob(cpu, nil, "").Where)
				check(advice.File(&cpu, "cpu.max"))
			}
		}
		for _, s := range []evidence.Stray{{Answer: true, Device: name,
			Enter:  evidence.Enter{Name: name},
			Kernel: event.Kernel{Reason: "TC_EGRESS"}},
			{Answer: true, Device: name, Enter: evidence.Enter{Name: name},
				Kernel: event.Kernel{Hook: "output", Family: "netdev"}}} {
			by := s.Freer()
			check(by.Place + s.Enter.InSpace(5, false))
			for _, fix := range by.Fix {
				check(fix)
			}
		}
		d := evidence.Diversion{By: "dnat rule in table ip " + name + ", chain c", NetNS: 5,
			Enter: evidence.Enter{Name: name}}
		check(rules.How(&d))
	}
	if checked < 100 {
		t.Errorf("the names were in %d texts: too few for a test", checked)
	}
}
