// SPDX-License-Identifier: Apache-2.0

package session

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/message"
)

// groups add up what came to SO_REUSEPORT groups whose members the backend cannot tell apart.
type groups struct {
	undivided map[uint64]bool
	of        map[Place]*group
}

type group struct {
	first    message.Listener // of the members that the filters let through
	syn, ack uint64
}

// NewGroups finds those of the listeners' groups that have a member which is wanted.
func NewGroups(all []message.Listener, undivided map[uint64]bool,
	wanted func(*message.Listener) bool) groups {
	g := groups{undivided, make(map[Place]*group)}
	for i := range all {
		l := &all[i]
		if at := PlaceOf(l); undivided[l.Socket] && g.of[at] == nil && wanted(l) {
			g.of[at] = &group{first: *l}
		}
	}
	return g
}

// Took reports whether a listener is a member of such a group, which what arrived then counts for.
func (g groups) Took(l *message.Listener, a listener.Arrivals) bool {
	if !g.undivided[l.Socket] {
		return false
	}
	if of := g.of[PlaceOf(l)]; of != nil {
		of.syn, of.ack = of.syn+a.Syn, of.ack+a.Ack
	}
	return true
}

// Seen has a row for each: like the record of a drop whose socket is not known, it names no socket.
func (g groups) Seen() (rows []event.Seen) {
	for _, of := range g.of {
		if of.syn+of.ack == 0 {
			continue
		}
		l := of.first
		l.Member, l.Proof = false, event.ProofState
		rows = append(rows, event.Seen{Listener: *Described(&l, false), Syn: of.syn,
			Ack: of.ack})
	}
	return rows
}
