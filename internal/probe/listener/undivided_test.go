// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"fmt"
	"github.com/synspy/synspy/internal/probe/message"
	"maps"
	"net/netip"
	"testing"
)

// TestSharing: a socket that several processes hold shares its place with none.
func TestSharing(t *testing.T) {
	at := func(socket, netns uint64, addr string, port uint16) message.Listener {
		return message.Listener{Socket: socket, NetNS: netns,
			Addr: netip.MustParseAddr(addr), Port: port}
	}
	bound := at(8, 1, "0.0.0.0", 80)
	bound.Device = 3 // a group, or none, of its own
	got := sharing([]message.Listener{
		bound,
		at(1, 1, "0.0.0.0", 80), at(2, 1, "0.0.0.0", 80), at(3, 1, "0.0.0.0",
			80), // a group of three
		at(4, 1, "0.0.0.0", 81), at(4, 1, "0.0.0.0", 81), // prefork
		at(5, 2, "0.0.0.0", 80), at(6, 1, "127.0.0.1", 80), at(7, 1, "::", 80),
	}, nil)
	if want := map[uint64]bool{1: true, 2: true, 3: true}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestSharingInTurn: who listens after another has closed shares nothing with it; who does so before, does.
func TestSharingInTurn(t *testing.T) {
	lives := map[uint64][2]uint64{1: {0, 100}, 2: {100, 300}, 3: {200, 0}, 4: {400, 0},
		5: {410, 420}, 6: {415, 418}, 7: {500, 0}}
	lived := func(socket uint64) (from, to uint64) { return lives[socket][0], lives[socket][1] }
	for want, sockets := range map[string][]uint64{
		"map[]":                            {1, 2},
		"map[2:true 3:true]":               {1, 2, 3},
		"map[5:true 6:true]":               {1, 5, 6, 7},
		"map[4:true 5:true 6:true 7:true]": {1, 7, 6, 5, 4},
		"map[2:true 3:true 4:true 7:true]": {7, 4, 3, 2, 1},
	} {
		var list []message.Listener
		for _, socket := range sockets {
			list = append(list,
				message.Listener{Socket: socket, NetNS: 1,
					Addr: netip.IPv4Unspecified(), Port: 80})
		}
		if got := fmt.Sprint(sharing(list, lived)); got != want {
			t.Errorf("%v: %s, want %s", sockets, got, want)
		}
	}
}
