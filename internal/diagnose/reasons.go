// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// reason is what is said about a death beyond its cause; false where that is all.
func (d *Death) reason(e *Evidence) (event.Reason, bool) {
	if TakenBefore(d.Kernel) {
		return event.Reason{}, false // the programs that are there say more
	}
	met := ""
	if d.Met != nil {
		met = d.Met.State
	}
	r, ok := event.ReasonFor(d.Cause, d.Kernel, d.Server.Addr.IsLoopback(), met, e.tells)
	if r.Name == event.NotOurAddress && value(d.Here) {
		return event.KeptFromAddress(), true
	}
	return r, ok
}

func (e *Evidence) tells(reason string) bool { return slices.Contains(e.Tells, reason) }

// Settings names the sysctls that decide about such a death, and whether only the machine's first network namespace
// has them, rather than that of the death.
func (d *Death) Settings(e *Evidence) map[string]bool {
	r, _ := d.reason(e)
	host := make(map[string]bool)
	for _, s := range r.Settings {
		for _, name := range d.names(s) {
			if name != "" {
				host[name] = s.Host
			}
		}
	}
	return host
}

// names are a setting's, for the death's device and family, and that of all devices, which takes part in it.
func (d *Death) names(s event.Setting) [2]string {
	name, all := s.For(d.Device, d.Server.Addr.Is6() && !d.Server.Addr.Is4In6())
	return [2]string{name, all}
}

// maxReasons bounds the findings of one cause: places beyond it are counted in one.
const maxReasons = 6

// byReason makes findings of the n packets that died of a cause where the kernel's reason tells more than the
// cause: one for each reason and place, since a setting is of one namespace and device. rest is how many are
// left to the cause alone.
func byReason(e *Evidence, id event.FindingID, cause event.Cause, n uint64) (out []*found, rest uint64) {
	type place struct {
		title  string
		netns  uint64
		device string
	}
	if n == 0 {
		return nil, 0
	}
	var order []place
	groups := make(map[place][]*Death)
	untold := false
	rest = n
	for _, list := range [][]Death{e.Ingress, e.Reasoned} {
		for i := range list {
			d := &list[i]
			if d.Cause != cause || d.NetNS == 0 && d.Kernel.Reason == "" { // which the rate limit held back
				continue
			}
			r, ok := d.reason(e)
			at := place{r.Title, d.NetNS, d.Device}
			if ok && groups[at] == nil && len(order) < maxReasons {
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
		out = append(out, ofReason(e, id, groups[at]))
	}
	if len(out) == 1 && !untold && rest > 0 { // every one that was looked at died of it
		out[0].weight += rest
		out[0].saw("further packets of this cause, not looked at one by one", rest, "packets")
		rest = 0
	}
	return out, rest
}

// ofReason is the finding of deaths that have a reason and a place in common.
func ofReason(e *Evidence, id event.FindingID, deaths []*Death) *found {
	first := deaths[0]
	r, _ := first.reason(e)
	var n uint64
	for _, d := range deaths {
		n += d.Count
	}
	f := newFound(id, n)
	f.Confidence = event.ConfidenceProven
	f.Owner, f.Title, f.because = r.Owner, upper(r.Title), r.Explain
	f.saw("packets", n, "packets").saw("cause", first.Cause.String(), "")
	f.sawPlace(first)
	for i, d := range deaths[:min(len(deaths), maxPlaces)] {
		if d.Server.Addr.IsValid() {
			f.saw("packets to "+where(event.Listener{Addr: d.Server.Addr, Port: d.Server.Port}), d.Count, "packets")
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
		f.fix(first.fill(e, "see whether the address is here: ip address show to ADDRESS; if it is, ip rule and ip route show table local say what keeps packets from it"))
	}
	f.met(deaths)
	for _, s := range r.Fix {
		f.fix(first.fill(e, s))
	}
	for _, s := range r.Settings {
		f.set(first, s)
	}
	for _, s := range r.Else {
		f.fix(first.fill(e, s))
	}
	return f
}

// maxPlaces is how many destinations a finding names.
const maxPlaces = 5

func (f *found) sawKernel(k event.Kernel) {
	if k.Function != "" {
		f.saw("kernel function", k.Function, "")
	}
	if k.Reason != "" {
		f.saw("kernel reason", k.Reason, "")
	}
}

// met names who holds the connections that SYNs met.
func (f *found) met(deaths []*Death) {
	var holders []event.Process
	for _, d := range deaths {
		for _, p := range d.Holders {
			if !slices.ContainsFunc(holders, func(o event.Process) bool { return o.PID == p.PID }) {
				holders = append(holders, p)
			}
		}
	}
	i := slices.IndexFunc(deaths, func(d *Death) bool { return d.Met != nil })
	if i < 0 {
		return
	}
	f.saw("state of the old connection", deaths[i].Met.State, "")
	if len(holders) == 0 {
		f.saw("process that has it", deaths[i].nobody(), "")
		return
	}
	f.Processes = bound(holders, maxProcesses)
	names := make([]string, 0, maxProcesses)
	for _, p := range f.Processes {
		names = append(names, who(p))
	}
	f.saw("process that has it", strings.Join(names, ", "), "")
	f.because += "; " + strings.Join(names[:min(len(names), 2)], ", ") + " has it open"
}

// nobody says why no process is named that has the connection.
func (d *Death) nobody() string {
	switch {
	case d.HoldersUnread > 0:
		return fmt.Sprintf("none of those that could be read; %s could not (CAP_SYS_PTRACE)", ofProcesses(d.HoldersUnread))
	case d.Met.State == "ESTAB" || d.Met.State == "CLOSE-WAIT":
		return "none that was found"
	}
	return "none: the kernel ends it by itself"
}

func ofProcesses(n uint64) string {
	if n == 1 {
		return "1 process"
	}
	return thousands(n) + " processes"
}

// set turns a setting where its present value is one to be changed, and cites it where it is not.
func (f *found) set(d *Death, s event.Setting) {
	names := d.names(s)
	now, known := d.inForce(names)
	if known && s.Only != "" && now != s.Only {
		f.saw(Said(names[0]), now, "")
		return
	}
	place := "/etc/sysctl.d/"
	if !s.Host && d.NetNS != 0 && !d.Own { // which that does not reach
		place = "what sets up its network namespace"
	}
	f.turn(event.Knob{Name: Said(names[0]), Now: now, Try: s.Try, Why: s.Why, Where: place})
	f.fix("until the next start: " + d.sysctl(s, names[0]))
}

// inForce is a setting's present value: of two the larger one.
func (d *Death) inForce(names [2]string) (now string, known bool) {
	now, known = d.Sysctls[names[0]]
	all, also := d.Sysctls[names[1]]
	if !known || !also {
		return now, known
	}
	a, err := strconv.Atoi(now)
	b, err2 := strconv.Atoi(all)
	if err == nil && err2 == nil && b > a {
		return all, true
	}
	return now, known
}

// sysctl is the command that sets it, in the namespace of the death.
func (d *Death) sysctl(s event.Setting, name string) string {
	value, in := s.Try, d.Enter.command()
	if _, err := strconv.Atoi(value); err != nil {
		value = "VALUE"
	}
	where := ""
	if s.Host {
		in, where = "", ", in the machine's first network namespace"
	} else if in == "" && d.NetNS != 0 && !d.Own {
		where = fmt.Sprintf(", in network namespace %d", d.NetNS)
	}
	return fmt.Sprintf("%ssysctl -w %s%s", in, word(name+"="+value), where)
}

// inNetNS are commands that show, or change, what is of one network namespace.
var inNetNS = regexp.MustCompile(`(^|[:;,(] |\band )((?:ip(?: -d)? (?:route|rule|address|link|xfrm|monitor)|tcpdump -|ethtool -|tc(?: -s)? filter|ss -|bridge(?: -d)? (?:fdb|link)|arping -))`)

// fill puts what is known of a death into a sentence that leaves it open, and its commands into the death's namespace.
func (d *Death) fill(e *Evidence, s string) string {
	if in := d.Enter.command(); in != "" {
		s = inNetNS.ReplaceAllString(s, "${1}"+strings.ReplaceAll(in, "$", "$$")+"${2}")
	}
	if plain(d.Device) {
		s = strings.ReplaceAll(s, "DEVICE", d.Device)
	}
	if d.Server.Addr.IsValid() {
		s = strings.ReplaceAll(s, "ADDRESS", d.Server.Addr.String())
		s = strings.ReplaceAll(s, "CLIENT", e.client(d.Server.Addr))
	}
	return s
}

// client is the client that lost most, of those of the server's family, and CLIENT where none is known. A listener on :: has both.
func (e *Evidence) client(of netip.Addr) string {
	for _, c := range e.Clients {
		addr, err := netip.ParseAddr(c.Addr)
		if err == nil && (of == netip.IPv6Unspecified() || addr.Unmap().Is4() == of.Unmap().Is4()) {
			return c.Addr
		}
	}
	return "CLIENT"
}

// sawReasons adds to a finding about a whole cause what the kernel's reasons for deaths at listeners say.
func (f *found) sawReasons(e *Evidence, cause event.Cause) {
	told := 0
	for i := range e.Reasoned {
		d := &e.Reasoned[i]
		r, ok := d.reason(e)
		if !ok || d.Cause != cause || told == maxPlaces {
			continue
		}
		told++
		f.saw(r.Title, d.Count, "packets")
		for _, s := range r.Fix {
			if s = d.fill(e, s); !slices.Contains(f.Fix, s) {
				f.fix(s)
			}
		}
	}
}
