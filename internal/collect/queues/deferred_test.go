// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestDeferral: who is half-open long after its ACK was ignored was held back; who is gone at the
// next look was not.
func TestDeferral(t *testing.T) {
	client := func(port uint16) event.Endpoint {
		return event.Endpoint{Addr: netip.MustParseAddr("10.0.0.7"), Port: port}
	}
	at := func(ports ...uint16) (list []netip.AddrPort) {
		for _, port := range ports {
			list = append(list, netip.AddrPortFrom(netip.MustParseAddr("10.0.0.7"),
				port))
		}
		return list
	}
	var d deferral
	for port := uint16(1); port <= 4; port++ {
		c := client(port)
		d.ignored(&c, 1000)
	}
	again := client(1)
	d.ignored(&again, 2000) // its ACK came again: it waits since the first
	d.see(1100, at(1, 2, 3))
	d.see(2500, at(1, 3))
	late := client(5)
	d.ignored(&late, 2600)
	d.see(2600, at(1)) // looked at before that ACK
	if diff := cmp.Diff(&evidence.Deferred{Watched: 4, Held: 2, AtEnd: 1, Young: 1,
		LongestMs: 1600}, d.end()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	d.unseen = true
	if d.end() != nil {
		t.Error("something is said of what could not be looked at")
	}
}
