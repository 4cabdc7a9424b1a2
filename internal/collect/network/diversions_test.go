// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestGiven: that a listener got SYNs for a port asked about, which is not its own, is noted once;
// its own port's are no diversion.
func TestGiven(t *testing.T) {
	d := &Diverted{ports: []uint16{8080}}
	addr := netip.MustParseAddr("10.0.0.1")
	for _, port := range []uint16{8080, 8080, 8087, 443} {
		d.Given(&event.Drop{Server: &event.Endpoint{Addr: addr, Port: port},
			Listener: &event.Listener{Addr: addr, Port: 8087, NetNS: 7}})
	}
	d.Given(&event.Drop{Server: &event.Endpoint{Addr: addr, Port: 8080}})
	if len(d.gave) != 1 || d.gave[0].From.Port() != 8080 ||
		d.gave[0].To != netip.AddrPortFrom(addr, 8087) || d.gave[0].NetNS != 7 {
		t.Errorf("%+v", d.gave)
	}
}
