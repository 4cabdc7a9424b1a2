// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
)

func TestGroups(t *testing.T) {
	at := netip.MustParseAddr("0.0.0.0")
	open := func(socket uint64, port uint16) message.Listener {
		return message.Listener{Known: true, Member: true, Socket: socket, Inode: socket,
			Cookie: socket, NetNS: 1, Addr: at, Port: port}
	}
	all := []message.Listener{open(1, 80), open(2, 80), open(3, 443), open(4, 90),
		open(5, 90)}
	undivided := map[uint64]bool{1: true, 2: true, 4: true, 5: true}
	// Of the group at 80 one member is wanted, of that at 90 none.
	g := NewGroups(all, undivided, func(l *message.Listener) bool {
		return l.Socket == 2 ||
			l.Socket == 3
	})
	for i := range all {
		if took := g.Took(&all[i], listener.Arrivals{Socket: all[i].Socket, Syn: 10,
			Ack: 1}); took != undivided[all[i].Socket] {
			t.Errorf("listener %d: taken %v", all[i].Socket, took)
		}
	}
	rows := g.Seen()
	if len(rows) != 1 {
		t.Fatalf("%+v, want one row", rows)
	}
	if l := rows[0].Listener; rows[0].Syn != 20 || rows[0].Ack != 2 || l.Port != 80 ||
		l.Inode != 0 || l.Cookie != 0 || l.Proof != event.ProofState {
		t.Errorf("%+v", rows[0])
	}
}
