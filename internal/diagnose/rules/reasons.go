// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// MaxReasons bounds the findings of one cause: places beyond it are counted in one.
const MaxReasons = 6

// byReason makes findings of the n packets that died of a cause where the kernel's reason tells
// more than the cause: one for each reason and place, since a setting is of one namespace and
// device. rest is how many are left to the cause alone.
func byReason(e *evidence.Evidence, id event.FindingID, cause event.Cause, n uint64) (out []*Found,
	rest uint64) {
	type place struct {
		title  string
		netns  uint64
		device string
	}
	if n == 0 {
		return nil, 0
	}
	var order []place
	groups := make(map[place][]*evidence.Death)
	untold := false
	rest = n
	for _, list := range [][]evidence.Death{e.Ingress, e.Reasoned} {
		for i := range list {
			d := &list[i]
			if d.Cause != cause || d.NetNS == 0 &&
				d.Kernel.Reason == "" { // which the rate limit held back
				continue
			}
			r, ok := d.Reason(e)
			at := place{r.Title, d.NetNS, d.Device}
			if ok && groups[at] == nil && len(order) < MaxReasons {
				order = append(order, at)
			}
			if ok = ok && slices.Contains(order, at); !ok {
				untold = true
				continue
			}
			groups[at] = append(groups[at], d)
			rest -= min(rest, d.Count)
		}
	}
	for _, at := range order {
		out = append(out, OfReason(e, id, groups[at]))
	}
	if len(out) == 1 && !untold && rest > 0 { // every one that was looked at died of it
		out[0].Weight += rest
		out[0].saw("further packets of this cause, not looked at one by one", rest,
			"packets")
		rest = 0
	}
	return out, rest
}

// OfReason is the finding of deaths that have a reason and a place in common.
func OfReason(e *evidence.Evidence, id event.FindingID, deaths []*evidence.Death) *Found {
	first := deaths[0]
	r, _ := first.Reason(e)
	var n uint64
	for _, d := range deaths {
		n += d.Count
	}
	f := newFound(id, n)
	f.Confidence = event.ConfidenceProven
	f.Owner, f.Title, f.Because = r.Owner, advice.Upper(r.Title), r.Explain
	f.saw("packets", n, "packets").saw("cause", first.Cause.String(), "")
	f.sawPlace(first)
	for i, d := range deaths[:min(len(deaths), evidence.MaxPlaces)] {
		if d.Server.Addr.IsValid() {
			f.saw("packets to "+evidence.Where(event.Listener{Addr: d.Server.Addr,
				Port: d.Server.Port}), d.Count, "packets")
		}
		if i == 0 {
			f.sawKernel(d.Kernel)
		}
	}
	if first.Kernel.Reason == "" || first.Kernel.Reason == "NOT_SPECIFIED" {
		f.Confidence = event.ConfidenceLikely
		if first.Cause == event.CauseTimeWait {
			f.Confidence = event.ConfidenceProven // this kernel would have said otherwise
		}
	}
	if r.Name == event.NotOurAddress && first.Here == nil {
		f.Confidence = event.ConfidenceLikely // routing rules make the kernel say the same of an address that is here
		f.fix(first.Fill(e,
			"see whether the address is here: ip address show to ADDRESS; if it is, ip rule and ip route show table local say what keeps packets from it"))
	}
	f.met(deaths)
	for _, s := range r.Fix {
		f.fix(first.Fill(e, s))
	}
	for _, s := range r.Settings {
		f.set(first, s)
	}
	for _, s := range r.Else {
		f.fix(first.Fill(e, s))
	}
	return f
}

func (f *Found) sawKernel(k event.Kernel) {
	if k.Function != "" {
		f.saw("kernel function", k.Function, "")
	}
	if k.Reason != "" {
		f.saw("kernel reason", k.Reason, "")
	}
}

// met names who holds the connections that SYNs met.
func (f *Found) met(deaths []*evidence.Death) {
	var holders []event.Process
	for _, d := range deaths {
		for _, p := range d.Holders {
			if !slices.ContainsFunc(holders,
				func(o event.Process) bool { return o.PID == p.PID }) {
				holders = append(holders, p)
			}
		}
	}
	i := slices.IndexFunc(deaths, func(d *evidence.Death) bool { return d.Met != nil })
	if i < 0 {
		return
	}
	f.saw("state of the old connection", deaths[i].Met.State, "")
	if len(holders) == 0 {
		f.saw("process that has it", deaths[i].Nobody(), "")
		return
	}
	f.Processes = evidence.Bound(holders, MaxProcesses)
	names := make([]string, 0, MaxProcesses)
	for _, p := range f.Processes {
		names = append(names, advice.Who(p))
	}
	f.saw("process that has it", strings.Join(names, ", "), "")
	f.Because += "; " + strings.Join(names[:min(len(names), 2)], ", ") + " has it open"
}

// set turns a setting where its present value is one to be changed, and cites it where it is not.
func (f *Found) set(d *evidence.Death, s event.Setting) {
	names := d.Names(s)
	now, known := d.InForce(names)
	if known && s.Only != "" && now != s.Only {
		f.saw(evidence.Said(names[0]), now, "")
		return
	}
	place := "/etc/sysctl.d/"
	if !s.Host && d.NetNS != 0 && !d.Own { // which that does not reach
		place = "what sets up its network namespace"
	}
	f.turn(event.Knob{Name: evidence.Said(names[0]), Now: now, Try: s.Try, Why: s.Why,
		Where: place})
	f.fix("until the next start: " + d.Sysctl(s, names[0]))
}

// sawReasons adds to a finding about a whole cause what the kernel's reasons for deaths at
// listeners say.
func (f *Found) sawReasons(e *evidence.Evidence, cause event.Cause) {
	told := 0
	for i := range e.Reasoned {
		d := &e.Reasoned[i]
		r, ok := d.Reason(e)
		if !ok || d.Cause != cause || told == evidence.MaxPlaces {
			continue
		}
		told++
		f.saw(r.Title, d.Count, "packets")
		for _, s := range r.Fix {
			if s = d.Fill(e, s); !slices.Contains(f.Fix, s) {
				f.fix(s)
			}
		}
	}
}
