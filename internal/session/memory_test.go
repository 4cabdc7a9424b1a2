// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
)

// TestListenersTakeLittle: what is kept of a listener and its holder, of which a machine may have a
// hundred thousand.
func TestListenersTakeLittle(t *testing.T) {
	const many, each = 50_000, 330 // bytes
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := inUse()
	listeners, owners := NewListeners(load.Filter{}), owner.New(t.TempDir(), nil)
	err := owners.ReplaceBy(func(enter func(owner.Holder)) error {
		for socket := uint64(1); socket <= many; socket++ {
			listeners.Add(message.Listener{Known: true, Member: true, Socket: socket,
				Inode: socket, NetNS: 1, Addr: netip.IPv4Unspecified(), Port: uint16(socket)})
			enter(owner.Holder{Socket: socket, Inode: socket, PID: 7, StartNs: 1e9})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if took := (inUse() - before) / many; took > each {
		t.Errorf("each takes %d bytes, want at most %d", took, each)
	}
	if len(listeners.known) != many || len(owners.Holders(many)) != 1 {
		t.Errorf("%d are known, the last one held by %d", len(listeners.known),
			owners.Holders(many))
	}
}
