// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net/netip"
	"slices"
	"testing"
)

// TestMarkAcceptors: a connection names the listener that the kernel would have
// chosen among those that its process holds, or none.
func TestMarkAcceptors(t *testing.T) {
	const pid, start, netns, port = 7, 70, 1, 80
	listener := func(socket uint64, addr string) Holder {
		return Holder{PID: pid, Start: start, Listener: Listener{Socket: socket, NetNS: netns, Port: port, Addr: netip.MustParseAddr(addr)}}
	}
	at := childPlace{pid, start, netns, port}
	later := childPlace{pid, start + 1, netns, port}
	for _, test := range []struct {
		name  string
		holds []Holder
		at    childPlace
		addr  string
		want  []uint64
	}{
		{"its address", []Holder{listener(1, "10.0.0.1"), listener(2, "10.0.0.2")}, at, "10.0.0.2", []uint64{2}},
		{"any address", []Holder{listener(1, "10.0.0.1"), listener(2, "0.0.0.0")}, at, "10.0.0.2", []uint64{2}},
		{"address before any", []Holder{listener(1, "0.0.0.0"), listener(2, "10.0.0.2")}, at, "10.0.0.2", []uint64{2}},
		{"IPv4 at an IPv6 listener", []Holder{listener(1, "::")}, at, "10.0.0.2", []uint64{1}},
		{"IPv4 before IPv6", []Holder{listener(1, "::"), listener(2, "0.0.0.0")}, at, "10.0.0.2", []uint64{2}},
		{"IPv6 at an IPv4 listener", []Holder{listener(1, "0.0.0.0")}, at, "fd00::1", nil},
		{"another address", []Holder{listener(1, "10.0.0.1")}, at, "10.0.0.2", nil},
		{"SO_REUSEPORT", []Holder{listener(1, "0.0.0.0"), listener(2, "0.0.0.0"), listener(3, "0.0.0.0")}, at, "10.0.0.2", nil},
		{"one socket twice", []Holder{listener(1, "0.0.0.0"), listener(1, "0.0.0.0")}, at, "10.0.0.2", []uint64{1, 1}},
		{"another process of that number", []Holder{listener(1, "0.0.0.0")}, later, "10.0.0.2", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			holders := Holders{List: test.holds}
			holders.markAcceptors(map[childPlace][]netip.Addr{test.at: {netip.MustParseAddr(test.addr)}})
			var got []uint64
			for _, h := range holders.List {
				if h.Accepted {
					got = append(got, h.Listener.Socket)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("accepted from %v, want %v", got, test.want)
			}
		})
	}
}
