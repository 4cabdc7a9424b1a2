// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/synspy/synspy/internal/event"
)

// TellsReason reports whether this kernel has a drop reason.
func (e *Evidence) TellsReason(reason string) bool { return slices.Contains(e.Tells, reason) }

// Client is the client that lost most, of those of the server's family, and CLIENT where none is
// known. A listener on :: has both.
func (e *Evidence) Client(of netip.Addr) string {
	for _, c := range e.Clients {
		addr, err := netip.ParseAddr(c.Addr)
		if err == nil && (of == netip.IPv6Unspecified() ||
			addr.Unmap().Is4() == of.Unmap().Is4()) {
			return c.Addr
		}
	}
	return "CLIENT"
}

// Freed lists what was freed of a listener's strays of a kind, SYN-ACKs on their way out or
// segments, most first, those in its own namespace before others.
func (e *Evidence) Freed(l *Listener, kind func(*Stray) bool) []Stray {
	var own, others []Stray
	for _, s := range e.Strays {
		addr := l.ID.Addr.Unmap()
		if !kind(&s) || s.From != l.ID.NetNS || s.Server.Port != l.ID.Port ||
			!addr.IsUnspecified() && addr != s.Server.Addr.Unmap() {
			continue
		}
		if s.NetNS == l.ID.NetNS {
			own = append(own, s)
		} else if l.Dropped(event.CauseHandshakeExpired) > 0 ||
			Value(l.SynAcksAgain) > 0 { // it is in trouble itself
			others = append(others, s)
		}
	}
	most := func(a, b Stray) int { return cmp.Compare(b.Count, a.Count) }
	slices.SortStableFunc(own, most)
	slices.SortStableFunc(others, most)
	return append(own, others...)
}

// OwnErrors reports whether this host sends itself ICMP errors: host unreachable, once the next hop
// has not answered.
func (e *Evidence) OwnErrors() bool {
	return slices.ContainsFunc(e.Strays, func(s Stray) bool {
		return s.WayOut() &&
			s.neighbour()
	})
}

// Within cuts a time that was counted in steps to the window: its end falls into the last of them.
func (e *Evidence) Within(ms float64) float64 {
	if e.WindowMs == 0 {
		return ms
	}
	return min(ms, float64(e.WindowMs))
}

// MaxPlaces is how many destinations a finding names.
const MaxPlaces = 5

// Where names a listener in a sentence: "0.0.0.0:443".
func Where(l event.Listener) string {
	addr := "*"
	if l.Addr.IsValid() {
		addr = l.Addr.String()
		if l.Addr.Is6() {
			addr = "[" + addr + "]"
		}
	}
	return addr + ":" + strconv.Itoa(int(l.Port))
}
