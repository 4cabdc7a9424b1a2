// SPDX-License-Identifier: Apache-2.0

package session

import (
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
)

// TestAskedBacklogForgotten: what listen() asked for is believed as long as the limit is what it
// led to.
func TestAskedBacklogForgotten(t *testing.T) {
	const socket = 7
	opened := func(limit, backlog uint32, asked bool) *Listeners {
		l := NewListeners(load.Filter{})
		l.Open(&message.Message{Time: 5, Backlog: backlog, Asked: asked,
			Listener: message.Listener{Known: true, Member: true, Socket: socket,
				Accept: event.Queue{Limit: limit}}})
		return l
	}
	now := func(limit uint32) *message.Listener {
		return &message.Listener{Socket: socket, Accept: event.Queue{Limit: limit}}
	}
	for _, tt := range []struct {
		name string
		l    *Listeners
		now  uint32
		want int // -1: not known
	}{
		{"cut", opened(128, 512, true), 128, 512},
		{"as asked", opened(128, 128, true), 128, 128},
		{"listen() was called again", opened(128, 512, true), 256, -1},
		{"less than the limit", opened(128, 64, true), 128, -1},
		{"not seen", opened(128, 0, false), 128, -1},
		{"a listener of before", NewListeners(load.Filter{}), 128, -1},
	} {
		got := -1
		if asked := tt.l.Asked(now(tt.now)); asked != nil {
			got = int(*asked)
		}
		if got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if at := opened(128, 512, true).OpenedAt(socket); at != 5 {
		t.Errorf("opened at %d, want 5", at)
	}
}
