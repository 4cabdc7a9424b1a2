package probe

import (
	"maps"
	"net/netip"
	"testing"
)

// TestSharing: a socket that several processes hold shares its place with none.
func TestSharing(t *testing.T) {
	at := func(socket, netns uint64, addr string, port uint16) Listener {
		return Listener{Socket: socket, NetNS: netns, Addr: netip.MustParseAddr(addr), Port: port}
	}
	got := sharing([]Listener{
		at(1, 1, "0.0.0.0", 80), at(2, 1, "0.0.0.0", 80), at(3, 1, "0.0.0.0", 80), // a group of three
		at(4, 1, "0.0.0.0", 81), at(4, 1, "0.0.0.0", 81), // prefork
		at(5, 2, "0.0.0.0", 80), at(6, 1, "127.0.0.1", 80), at(7, 1, "::", 80),
	})
	if want := map[uint64]bool{1: true, 2: true, 3: true}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
