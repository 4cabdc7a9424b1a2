// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// maxPrograms bounds the programs that a finding names, maxLooks the devices that it says how to look at.
const (
	maxPrograms = 8
	maxLooks    = 4
)

// taker is what drops packets after the driver and before the IP stack, of which the kernel tells.
type taker int

const (
	takerNone taker = iota
	takerXDP        // a generic XDP program
	takerTC         // a tc program or filter at ingress
)

// takerOf says what dropped a packet. Of generic XDP it is the function that frees which tells: its drops have the
// reason NOT_SPECIFIED (netif_receive_generic_xdp up to 6.18 at least), and these functions free nothing else, but
// for want of memory. sch_handle_ingress is mostly inlined into one that frees for other reasons too; there it is the
// reason that tells.
func takerOf(at event.Kernel) taker {
	function, _, _ := strings.Cut(at.Function, ".") // as the compiler may have named its copy
	switch {
	case at.Reason == "XDP", slices.Contains([]string{"do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp"}, function):
		return takerXDP
	case at.Reason == "TC_INGRESS", function == "sch_handle_ingress":
		return takerTC
	}
	return takerNone
}

// TakenBefore tells whether the kernel says that an XDP or tc program dropped the packet.
func TakenBefore(at event.Kernel) bool { return takerOf(at) != takerNone }

// sawPrograms cites what is on the devices and sees packets before the IP stack, if it hooks in where
// wanted says, and says what of it is not known. That a program is there does not say that it dropped anything.
func (f *found) sawPrograms(e *Evidence, wanted func(Program) bool) {
	told, more := 0, 0
	for _, d := range e.Devices {
		for _, p := range d.Programs {
			switch {
			case !wanted(p):
			case told < maxPrograms:
				f.saw(p.what()+" on "+d.String(), p.String(), "")
				told++
			default:
				more++
			}
		}
	}
	if more > 0 {
		f.saw("further programs on devices", more, "programs")
	}
	if told == 0 && e.DevicesRead != nil {
		f.saw("devices read, with no XDP or tc program in the way of SYNs", *e.DevicesRead, "devices")
	}
	for _, g := range e.Missing {
		if g.Need == NeedDevices {
			f.saw("XDP and tc programs not known", g.Why, "")
		}
	}
}

// lookAtPrograms says how to look at them.
func (f *found) lookAtPrograms(e *Evidence, wanted func(Program) bool) {
	looks := 0
	for _, d := range e.Devices {
		if i := slices.IndexFunc(d.Programs, wanted); i < 0 {
			continue
		}
		if looks++; looks > maxLooks {
			f.fix("look at the other devices likewise")
			return
		}
		f.fix("look at what sees packets on " + Said(d.Name) + " before the IP stack does: " + d.look(wanted))
	}
}

func anyProgram(Program) bool { return true }

func (p Program) xdp() bool     { return strings.HasSuffix(p.Hook, "XDP") }     // in any mode
func (p Program) ingress() bool { return strings.HasSuffix(p.Hook, "ingress") } // tc's, with and without tcx

func (p Program) netdev() bool { return strings.HasPrefix(p.Hook, "netdev") } // nftables'

// what it is: "native XDP program".
func (p Program) what() string {
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
	return Said(d.Name) + d.Enter.inSpace(d.NetNS, false)
}

// look is the commands that show the programs, run in the device's namespace. Names that a shell would not
// take as they are stay out of them.
func (d *Device) look(wanted func(Program) bool) string {
	in, where := d.Enter.command(), ""
	if in == "" && d.NetNS != 0 {
		where = fmt.Sprintf("in network namespace %d, ", d.NetNS)
	}
	dev := ""
	if plain(d.Name) {
		dev = " dev " + d.Name
	}
	var commands []string
	if slices.ContainsFunc(d.Programs, func(p Program) bool { return wanted(p) && !p.netdev() }) {
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
		case p.xdp():
			add(in + "ip -d link show" + dev)
		case dev != "" && p.Hook == "tc ingress":
			add(in + "tc filter show" + dev + " ingress")
		case dev != "" && p.Hook == "tc egress":
			add(in + "tc filter show" + dev + " egress")
		}
	}
	return where + strings.Join(commands, "; ")
}

// seesFirst names which hooks on which devices see packets before the IP stack; empty where none is known.
func seesFirst(e *Evidence) string {
	var places []string
	more := 0
	for _, d := range e.Devices {
		for _, p := range d.Programs {
			place := p.Hook + " on " + Said(d.Name)
			switch {
			case slices.Contains(places, place):
			case len(places) == 3:
				more++
			default:
				places = append(places, place)
			}
		}
	}
	if len(places) == 0 {
		return ""
	}
	if more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(places, ", "), more)
	}
	return strings.Join(places, ", ")
}

// takenBefore makes more of n deaths of kernel_other if the kernel says of every one that an XDP or tc program,
// or a tc filter, dropped it. Which one of those that are there did, it does not say.
func (f *found) takenBefore(e *Evidence, n uint64) {
	by := make(map[taker]uint64)
	for _, d := range e.Ingress {
		if d.Cause == event.CauseKernelOther {
			by[takerOf(d.Kernel)] += d.Count
		}
	}
	wanted := func(p Program) bool {
		return p.xdp() && by[takerXDP] > 0 || p.ingress() && !p.Redirect && by[takerTC] > 0
	}
	switch n {
	case by[takerXDP]:
		f.Title = "a generic XDP program drops the packets"
	case by[takerTC]:
		f.Title = "a tc program or filter drops the packets as they arrive"
	case by[takerXDP] + by[takerTC]:
		f.Title = "XDP and tc programs drop the packets"
	default:
		return
	}
	f.because, f.Confidence, f.Settles, f.Fix = f.Title, event.ConfidenceProven, "", nil
	f.sawPrograms(e, wanted)
	f.lookAtPrograms(e, wanted)
	f.fix("change the program or filter that drops them, or ask whoever loads it: a load balancer, a CNI plugin, protection against floods")
}

// takenUnseen takes it back that nothing is wrong where programs or filters see packets first: what they take of
// some clients is neither among the SYNs that arrived nor among those that died.
func (f *found) takenUnseen(e *Evidence) {
	unread := slices.ContainsFunc(e.Missing, func(g Gap) bool { return g.Need == NeedDevices })
	if len(e.Devices) == 0 && !unread {
		return
	}
	if f.Confidence == event.ConfidenceProven {
		f.Confidence = event.ConfidenceLikely
		f.Settles = "whether other clients' SYNs are taken before the IP stack: compare tcpdump on the port with the SYNs counted here"
	}
	if len(e.Devices) > 0 {
		f.because += "; SYNs that " + seesFirst(e) + " may have taken before the IP stack are not among them"
	}
	f.sawPrograms(e, anyProgram)
	f.lookAtPrograms(e, anyProgram)
}
