// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// maxPrograms bounds the programs that a finding names, maxLooks the devices that it says how to
// look at.
const (
	MaxPrograms = 8
	maxLooks    = 4
)

// sawPrograms cites what is on the devices and sees packets before the IP stack, if it hooks in
// where wanted says, and says what of it is not known. That a program is there does not say that it
// dropped anything.
func (f *Found) sawPrograms(e *evidence.Evidence, wanted func(evidence.Program) bool) {
	told, more := 0, 0
	for _, d := range e.Devices {
		for _, p := range d.Programs {
			switch {
			case !wanted(p):
			case told < MaxPrograms:
				f.saw(p.What()+" on "+d.String(), p.String(), "")
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
		f.saw("devices read, with no XDP or tc program in the way of SYNs", *e.DevicesRead,
			"devices")
	}
	for _, g := range e.Missing {
		if g.Need == evidence.NeedDevices {
			f.saw("XDP and tc programs not known", g.Why, "")
		}
	}
}

// suggestPrograms says how to look at them.
func (f *Found) suggestPrograms(e *evidence.Evidence, wanted func(evidence.Program) bool) {
	looks := 0
	for _, d := range e.Devices {
		if i := slices.IndexFunc(d.Programs, wanted); i < 0 {
			continue
		}
		if looks++; looks > maxLooks {
			f.fix("look at the other devices likewise")
			return
		}
		f.fix("look at what sees packets on " + evidence.Said(d.Name) +
			" before the IP stack does: " + d.ShowCommands(wanted))
	}
}

// AnyProgram wants all of them.
func AnyProgram(evidence.Program) bool { return true }

// SeesFirst names which hooks on which devices see packets before the IP stack; empty where none is
// known.
func SeesFirst(e *evidence.Evidence) string {
	var places []string
	more := 0
	for _, d := range e.Devices {
		for _, p := range d.Programs {
			place := p.Hook + " on " + evidence.Said(d.Name)
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

// takenBefore makes more of n deaths of kernel_other if the kernel says of every one that an XDP or
// tc program, or a tc filter, dropped it. Which one of those that are there did, it does not say.
func (f *Found) takenBefore(e *evidence.Evidence, n uint64) {
	by := make(map[evidence.Taker]uint64)
	for _, d := range e.Ingress {
		if d.Cause == event.CauseKernelOther {
			by[evidence.TakerOf(d.Kernel)] += d.Count
		}
	}
	wanted := func(p evidence.Program) bool {
		return p.XDP() && by[evidence.TakerXDP] > 0 || p.Ingress() && !p.Redirect &&
			by[evidence.TakerTC] > 0
	}
	switch n {
	case by[evidence.TakerXDP]:
		f.Title = "a generic XDP program drops the packets"
	case by[evidence.TakerTC]:
		f.Title = "a tc program or filter drops the packets as they arrive"
	case by[evidence.TakerXDP] + by[evidence.TakerTC]:
		f.Title = "XDP and tc programs drop the packets"
	default:
		return
	}
	f.Because, f.Confidence, f.Settles, f.Fix = f.Title, event.ConfidenceProven, "", nil
	f.sawPrograms(e, wanted)
	f.suggestPrograms(e, wanted)
	f.fix("change the program or filter that drops them, or ask whoever loads it: a load balancer, a CNI plugin, protection against floods")
}

// takenUnseen takes it back that nothing is wrong where programs or filters see packets first: what
// they take of some clients is neither among the SYNs that arrived nor among those that died.
func (f *Found) takenUnseen(e *evidence.Evidence) {
	unread := slices.ContainsFunc(e.Missing,
		func(g evidence.Gap) bool { return g.Need == evidence.NeedDevices })
	if len(e.Devices) == 0 && !unread {
		return
	}
	if f.Confidence == event.ConfidenceProven {
		f.Confidence = event.ConfidenceLikely
		f.Settles = "whether other clients' SYNs are taken before the IP stack: compare tcpdump on the port with the SYNs counted here"
	}
	if len(e.Devices) > 0 {
		f.Because += "; SYNs that " + SeesFirst(e) +
			" may have taken before the IP stack are not among them"
	}
	f.sawPrograms(e, AnyProgram)
	f.suggestPrograms(e, AnyProgram)
}
