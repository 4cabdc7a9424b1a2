// SPDX-License-Identifier: Apache-2.0

package holders

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/synspy/synspy/internal/probe/message"
)

// TestAcceptors: a connection names the listener that the kernel would have
// chosen among those that its process holds, or none.
func TestAcceptors(t *testing.T) {
	const pid, start, netns, port = 7, 70, 1, 80
	listener := func(socket uint64, addr string) message.Listener {
		return message.Listener{Socket: socket, NetNS: netns, Port: port, Addr: netip.MustParseAddr(addr)}
	}
	for _, test := range []struct {
		name  string
		holds []message.Listener
		addr  string
		want  []uint64
	}{
		{"its address", []message.Listener{listener(1, "10.0.0.1"), listener(2, "10.0.0.2")}, "10.0.0.2", []uint64{2}},
		{"any address", []message.Listener{listener(1, "10.0.0.1"), listener(2, "0.0.0.0")}, "10.0.0.2", []uint64{2}},
		{"address before any", []message.Listener{listener(1, "0.0.0.0"), listener(2, "10.0.0.2")}, "10.0.0.2", []uint64{2}},
		{"IPv4 at an IPv6 listener", []message.Listener{listener(1, "::")}, "10.0.0.2", []uint64{1}},
		{"IPv4 before IPv6", []message.Listener{listener(1, "::"), listener(2, "0.0.0.0")}, "10.0.0.2", []uint64{2}},
		{"IPv6 at an IPv4 listener", []message.Listener{listener(1, "0.0.0.0")}, "fd00::1", nil},
		{"another address", []message.Listener{listener(1, "10.0.0.1")}, "10.0.0.2", nil},
		{"SO_REUSEPORT", []message.Listener{listener(1, "0.0.0.0"), listener(2, "0.0.0.0"), listener(3, "0.0.0.0")}, "10.0.0.2", nil},
		{"one socket twice", []message.Listener{listener(1, "0.0.0.0"), listener(1, "0.0.0.0")}, "10.0.0.2", []uint64{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []uint64
			a := acceptors{accepted: func(socket uint64, by uint32, since uint64) {
				if by != pid || since != start {
					t.Errorf("process %d of %d accepted", by, since)
				}
				got = append(got, socket)
			}}
			addr := netip.MustParseAddr(test.addr)
			a.come(pid, start-1) // another process of that number
			a.has(netns, port, addr)
			a.come(pid, start)
			a.has(netns, port, addr) // it comes before or after its listener
			for _, l := range test.holds {
				a.holds(l.Socket, l.NetNS, l.Port, l.Addr)
			}
			a.come(pid+1, start)
			a.has(netns, port, addr)
			a.come(0, 0)
			if !slices.Equal(got, test.want) {
				t.Errorf("accepted from %v, want %v", got, test.want)
			}
		})
	}
}
