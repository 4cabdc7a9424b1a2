// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// XDP reports whether it sees packets before the kernel has made them its own, in any mode.
func (p Program) XDP() bool { return strings.HasSuffix(p.Hook, "XDP") }

// Ingress reports whether it is tc's and sees what the device received, with and without tcx.
func (p Program) Ingress() bool { return strings.HasSuffix(p.Hook, "ingress") }

// netdev reports whether it is nftables'.
func (p Program) netdev() bool { return strings.HasPrefix(p.Hook, "netdev") }

// What it is: "native XDP program".
func (p Program) What() string {
	if p.netdev() {
		return p.Hook + " chain of nftables"
	}
	if p.ID == 0 {
		return p.Hook + " filter"
	}
	return p.Hook + " program"
}

func (p Program) String() string {
	id := "id " + strconv.FormatUint(uint64(p.ID), 10)
	switch {
	case p.Redirect && p.netdev():
		return "a rule (fwd) that sends what it matches to another device"
	case p.Redirect:
		return Said(p.Filter) + ", redirects what it matches to another device"
	case p.ID == 0:
		return Said(p.Filter) + ", drops what it matches"
	case p.Name == "":
		return id
	}
	return Said(p.Name) + " (" + id + ")"
}

// String is the device with where it is.
func (d *Device) String() string {
	if d.NetNS == 0 {
		return Said(d.Name)
	}
	return Said(d.Name) + d.Enter.InSpace(d.NetNS, false)
}

// ShowCommands are the commands that show the programs, run in the device's namespace. Names that a shell
// would not take as they are stay out of them.
func (d *Device) ShowCommands(wanted func(Program) bool) string {
	in, where := d.Enter.Command(), ""
	if in == "" && d.NetNS != 0 {
		where = fmt.Sprintf("in network namespace %d, ", d.NetNS)
	}
	dev := ""
	if Plain(d.Name) {
		dev = " dev " + d.Name
	}
	var commands []string
	if slices.ContainsFunc(d.Programs, func(p Program) bool {
		return wanted(p) &&
			!p.netdev()
	}) {
		commands = append(commands, in+"bpftool net show"+dev)
	}
	add := func(command string) {
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
	}
	for _, p := range d.Programs {
		switch {
		case !wanted(p):
		case p.netdev():
			add(in + "nft list ruleset netdev")
		case p.XDP():
			add(in + "ip -d link show" + dev)
		case dev != "" && p.Hook == "tc ingress":
			add(in + "tc filter show" + dev + " ingress")
		case dev != "" && p.Hook == "tc egress":
			add(in + "tc filter show" + dev + " egress")
		}
	}
	return where + strings.Join(commands, "; ")
}

// Taker is what drops packets after the driver and before the IP stack, of which the kernel tells.
type Taker int

const (
	takerNone Taker = iota
	TakerXDP        // a generic XDP program
	TakerTC         // a tc program or filter at ingress
)

// TakerOf says what dropped a packet. Of generic XDP it is the function that frees which tells: its
// drops have the reason NOT_SPECIFIED (netif_receive_generic_xdp up to 6.18 at least), and these
// functions free nothing else, but for want of memory. sch_handle_ingress is mostly inlined into
// one that frees for other reasons too; there it is the reason that tells.
func TakerOf(at event.Kernel) Taker {
	function, _, _ := strings.Cut(at.Function, ".") // as the compiler may have named its copy
	switch {
	case at.Reason == "XDP", slices.Contains([]string{"do_xdp_generic",
		"netif_receive_generic_xdp", "bpf_prog_run_generic_xdp"}, function):
		return TakerXDP
	case at.Reason == "TC_INGRESS", function == "sch_handle_ingress":
		return TakerTC
	}
	return takerNone
}

// TakenBefore reports whether the kernel says that an XDP or tc program dropped the packet.
func TakenBefore(at event.Kernel) bool { return TakerOf(at) != takerNone }
