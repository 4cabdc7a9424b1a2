// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// Reason is what is said about a death beyond its cause; false where that is all.
func (d *Death) Reason(e *Evidence) (event.Reason, bool) {
	if TakenBefore(d.Kernel) {
		return event.Reason{}, false // the programs that are there say more
	}
	met := ""
	if d.Met != nil {
		met = d.Met.State
	}
	r, ok := event.ReasonFor(d.Cause, d.Kernel, d.Server.Addr.IsLoopback(), met, e.TellsReason)
	if r.Name == event.NotOurAddress && Value(d.Here) {
		return event.KeptFromAddress(), true
	}
	return r, ok
}

// Settings names the sysctls that decide about such a death, and whether only the machine's first
// network namespace has them, rather than that of the death.
func (d *Death) Settings(e *Evidence) map[string]bool {
	r, _ := d.Reason(e)
	host := make(map[string]bool)
	for _, s := range r.Settings {
		for _, name := range d.Names(s) {
			if name != "" {
				host[name] = s.Host
			}
		}
	}
	return host
}

// Names are a setting's, for the death's device and family, and that of all devices, which takes
// part in it.
func (d *Death) Names(s event.Setting) [2]string {
	name, all := s.For(d.Device, d.Server.Addr.Is6() && !d.Server.Addr.Is4In6())
	return [2]string{name, all}
}

// Nobody says why no process is named that has the connection.
func (d *Death) Nobody() string {
	switch {
	case d.HoldersUnread > 0:
		return fmt.Sprintf("none of those that could be read; %s could not (CAP_SYS_PTRACE)", ofProcesses(d.HoldersUnread))
	case d.Met.State == "ESTAB" || d.Met.State == "CLOSE-WAIT":
		return "none that was found"
	}
	return "none: the kernel ends it by itself"
}

// InForce is a setting's present value: of two the larger one.
func (d *Death) InForce(names [2]string) (now string, known bool) {
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

// Sysctl is the command that sets it, in the namespace of the death.
func (d *Death) Sysctl(s event.Setting, name string) string {
	value, in := s.Try, d.Enter.Command()
	if _, err := strconv.Atoi(value); err != nil {
		value = "VALUE"
	}
	where := ""
	if s.Host {
		in, where = "", ", in the machine's first network namespace"
	} else if in == "" && d.NetNS != 0 && !d.Own {
		where = fmt.Sprintf(", in network namespace %d", d.NetNS)
	}
	return fmt.Sprintf("%ssysctl -w %s%s", in, Word(name+"="+value), where)
}

// Fill puts what is known of a death into a sentence that leaves it open, and its commands into the
// death's namespace.
func (d *Death) Fill(e *Evidence, s string) string {
	if in := d.Enter.Command(); in != "" {
		s = InNetNS.ReplaceAllString(s, "${1}"+strings.ReplaceAll(in, "$", "$$")+"${2}")
	}
	if Plain(d.Device) {
		s = strings.ReplaceAll(s, "DEVICE", d.Device)
	}
	if d.Server.Addr.IsValid() {
		s = strings.ReplaceAll(s, "ADDRESS", d.Server.Addr.String())
		s = strings.ReplaceAll(s, "CLIENT", e.Client(d.Server.Addr))
	}
	return s
}

func ofProcesses(n uint64) string {
	if n == 1 {
		return "1 process"
	}
	return Thousands(n) + " processes"
}

// InNetNS are commands that show, or change, what is of one network namespace.
var InNetNS = regexp.MustCompile(`(^|[:;,(] |\band )((?:ip(?: -d)? (?:route|rule|address|link|xfrm|monitor)|tcpdump -|ethtool -|tc(?: -s)? filter|ss -|bridge(?: -d)? (?:fdb|link)|arping -))`)
