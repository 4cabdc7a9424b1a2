// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"net/netip"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/message"
)

// TestUndivided: what was counted to some member of a group is no member's, and all of it is the
// group's; unless a filter keeps members out.
func TestUndivided(t *testing.T) {
	member := func(socket uint64) message.Listener {
		return message.Listener{Socket: socket, NetNS: 1, Addr: netip.IPv4Unspecified(),
			Port: 80}
	}
	other := message.Listener{Socket: 3, NetNS: 1, Addr: netip.IPv4Unspecified(), Port: 81}
	all := []message.Listener{member(1), member(2), other}
	undivided := map[uint64]bool{1: true, 2: true}
	seen := map[uint64]event.Seen{1: {Syn: 70, Ack: 75}, 2: {Syn: 7}, 3: {Syn: 5, Ack: 5}}

	w := New(nil, time.Minute)
	for _, l := range all {
		w.Rows[l.Socket] = &Row{Listener: l}
	}
	syns := func() *uint64 { n, _ := w.GroupSums(seen); return n }
	if w.mix(all, nil); syns() != nil {
		t.Error("a group's SYNs where every listener has its own")
	}
	w.mix(all, undivided)
	if !w.Rows[1].Undivided || !w.Rows[2].Undivided || w.Rows[3].Undivided {
		t.Errorf("undivided: %t, %t and %t", w.Rows[1].Undivided, w.Rows[2].Undivided,
			w.Rows[3].Undivided)
	}
	if sum := syns(); sum == nil || *sum != 77 {
		t.Errorf("the group's SYNs: %v, want 77", sum)
	}
	w.Rows[1].counts = []event.Count{{Cause: event.CauseDeferAccept, Stage: event.StageAck,
		Action: event.ActionIgnored, Count: 4}}
	if _, finished := w.GroupSums(seen); finished == nil || *finished != 71 {
		t.Errorf("finished by the group: %v, want 71: 75 ACKs came, and 4 were ignored",
			finished)
	}
	w.mix([]message.Listener{member(1)}, nil)
	if !w.Rows[1].Undivided {
		t.Error("what was counted while there were two is divided once the other has gone")
	}
	delete(w.Rows, 2)
	if w.mix(all, undivided); syns() != nil {
		t.Error("the SYNs of a group of which not all are under watch")
	}
}

// TestUndivide: such counts are unknown, not zero; drops are each socket's own.
func TestUndivide(t *testing.T) {
	n := uint64(4)
	l := evidence.Listener{Syns: &n, Accepts: &n, Finished: &n,
		Timeline: []event.TimelinePoint{{Arrivals: &n, Accepts: &n, Drops: &n}}}
	Undivide(&l)
	if p := l.Timeline[0]; l.Syns != nil || l.Accepts != nil || l.Finished != nil ||
		p.Arrivals != nil || p.Accepts != nil || p.Drops == nil {
		t.Errorf("%+v, %+v", l, p)
	}
}
