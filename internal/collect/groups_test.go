// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"net/netip"
	"testing"

	"github.com/synspy/synspy/internal/collect/queues"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// TestMembers: sockets are of one group where the kernel has them in one, not where their addresses
// are the same.
func TestMembers(t *testing.T) {
	rows := make(map[uint64]*queues.Row)
	var all []evidence.Listener
	listen := func(socket uint64, device, members uint32) {
		l := message.Listener{Known: true, Member: true, Socket: socket, NetNS: 1,
			Addr: netip.IPv4Unspecified(), Port: uint16(80 + socket/10),
			Device: device, Reuseport: event.Reuseport{Members: members}}
		rows[socket] = &queues.Row{Listener: l}
		all = append(all, evidence.Listener{ID: *session.Described(&l, true)})
	}
	listen(1, 0, 2) // a group of two
	listen(2, 0, 2)
	listen(11, 0, 0) // at one place, in no group: devices differ, so none needs SO_REUSEPORT
	listen(12, 0, 0)
	listen(21, 3, 1) // two groups of one
	listen(22, 0, 1)
	listen(31, 3, 2) // two groups of two, of one of which a filter leaves one
	listen(32, 0, 2)
	listen(33, 0, 2)
	addMembers(all, rows)
	want := map[uint64]int{1: 2, 2: 2, 32: 2, 33: 2}
	for i := range all {
		l := &all[i]
		if len(l.Members) != want[l.ID.Key] {
			t.Errorf("socket %d: %d members, want %d", l.ID.Key, len(l.Members),
				want[l.ID.Key])
		}
	}
}
