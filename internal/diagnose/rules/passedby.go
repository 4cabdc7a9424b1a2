// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// notChosen is why the kernel's lookup passes a listener by, in words that follow its name, and
// what to do about it.
type notChosen struct{ why, fix string }

// passed says why SYNs that died so did not get to a listener of their port in their namespace.
func passed(l *evidence.Elsewhere, d *evidence.Death) notChosen {
	to, bound := d.Server.Addr.Unmap(), l.Listener.Addr.Unmap()
	device, from, bindTo := d.Device, "", "no device"
	if device != "" {
		bindTo = evidence.Said(device) + ", or to no device"
		from = ", and these SYNs came in by " + evidence.Said(device)
	}
	port := l.Listener.Port
	any4 := l.Listener.Addr.Is6() && l.Listener.Addr.IsUnspecified() && evidence.Value(l.V6Only)
	switch {
	case l.Device != "" && l.Device != device:
		kind := "device "
		if l.VRF {
			kind = "a VRF by its device "
		}
		return notChosen{fmt.Sprintf("is bound to %s%s (SO_BINDTODEVICE)%s", kind,
			evidence.Said(l.Device), from),
			fmt.Sprintf("bind it to %s: its SO_BINDTODEVICE, BindToDevice= of a systemd .socket unit, ip vrf exec", bindTo)}
	case to.Is4() && (any4 || bound.Is6() && !bound.IsUnspecified()):
		return notChosen{"is for IPv6 only (IPV6_V6ONLY), and these SYNs are IPv4",
			fmt.Sprintf("let it take IPv4 as well: listen on 0.0.0.0:%d, too, or switch IPV6_V6ONLY off for its socket (nginx: listen [::]:%d ipv6only=off, or a second listen %d; systemd: BindIPv6Only=both)", port, port, port)}
	case to.Is6() && bound.Is4():
		return notChosen{"is for IPv4 only, and these SYNs are IPv6",
			fmt.Sprintf("let it listen on [::]:%d as well", port)}
	case bound.IsLoopback() && !to.IsLoopback():
		return notChosen{fmt.Sprintf(
			"is bound to %s, which only this host itself can reach", bound),
			fmt.Sprintf("bind it to %s, or to all addresses: its listen or bind address", to)}
	case !bound.IsUnspecified() && bound != to:
		return notChosen{fmt.Sprintf("is bound to the address %s", bound),
			fmt.Sprintf("bind it to %s, or to all addresses, or send clients to %s", to,
				bound)}
	case d.VRF && l.Device == "":
		return notChosen{fmt.Sprintf("is in no VRF, and these SYNs came in through VRF %s",
			evidence.Said(device)),
			fmt.Sprintf("start it in the VRF (ip vrf exec %s ...), or let listeners take what comes in through VRFs: sysctl -w net.ipv4.tcp_l3mdev_accept=1", evidence.Word(device))}
	}
	if l.Throughout {
		return notChosen{"listened all the time, and nothing in its address or device stands in their way: a program that chooses listeners may refuse them (sk_lookup, SO_REUSEPORT)",
			"look at the programs that choose listeners: " + l.Enter.Command() +
				"bpftool link show (type netns: sk_lookup); " +
				"SO_ATTACH_REUSEPORT_EBPF is the process's own"}
	}
	return notChosen{"would take them now: it may have begun to listen later",
		"watch again: a service that only now began to listen has nothing to be changed"}
}

// passedBy names listeners that have the port of SYNs which found none, and says why they did not
// get them; false where there is none in the same namespace.
func (f *Found) passedBy(e *evidence.Evidence, deaths []evidence.Death) bool {
	told, others := 0, 0
	for i := range e.Elsewhere {
		l := &e.Elsewhere[i]
		at := slices.IndexFunc(deaths,
			func(d evidence.Death) bool {
				return d.Server.Port == l.Listener.Port &&
					d.NetNS == l.Listener.NetNS
			})
		switch {
		case at < 0:
			others++
		case told < maxElsewhere:
			not := passed(l, &deaths[at])
			f.saw("a listener on that port", fmt.Sprintf("%s%s %s", named(l),
				l.InSpace(), not.why), "")
			if told == 0 {
				f.Because += fmt.Sprintf(" for these SYNs: %s %s", named(l),
					not.why)
				f.Title = f.Because
				f.Listener, f.Processes, f.Confidence = &l.Listener,
					evidence.Bound(l.Processes,
						MaxProcesses), event.ConfidenceLikely
			}
			if !slices.Contains(f.Fix, not.fix) {
				f.fix(not.fix)
			}
			told++
		}
	}
	for i := range e.Elsewhere {
		l := &e.Elsewhere[i]
		if told > 0 || others == 0 {
			break
		}
		f.saw("a listener elsewhere", named(l)+l.InSpace(), "")
	}
	if told == 0 && others > 0 {
		f.fix("bind the service to the address that clients use, or send clients to where it listens: see the listeners named")
	}
	return told > 0
}

// maxElsewhere is how many listeners on a port are named.
const maxElsewhere = 5

// named is the listener with who holds it.
func named(l *evidence.Elsewhere) string {
	if len(l.Processes) == 0 {
		return evidence.Where(l.Listener)
	}
	return evidence.Where(l.Listener) + " of " + advice.Who(l.Processes[0])
}
