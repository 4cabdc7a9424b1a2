// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/world"
)

// Ingress is the expectation of SYNs that die before any listener sees them:
// one record each, in this order, that names no listener (its zero value means
// this at StageIngress), and no counter of the closed list moves. A client that
// is listed twice sent its SYN twice.
func Ingress(cause event.Cause, action event.Action, dead ...*world.Client) Expectation {
	records, handshakes := Group(cause, event.StageIngress, action, dead)
	return Expectation{Records: []Expect{records}, Counters: Counters(nil),
		Handshakes: handshakes}
}

// Group is the records of these packets' deaths, and how many handshakes they
// belong to.
func Group(cause event.Cause, stage event.Stage, action event.Action, dead []*world.Client) (Expect,
	int) {
	type handshake struct {
		world.Flow
		isn uint32
	}
	e := Expect{Cause: cause, Stage: stage, Action: action, Count: len(dead),
		Clients: Addresses(dead)}
	sent := make(map[handshake]int)
	for _, c := range dead {
		h := handshake{world.Flow{Client: c.Local, Server: c.Remote}, c.ISN}
		sent[h]++
		e.Attempts = append(e.Attempts, sent[h])
	}
	return e, len(sent)
}

// WantAction fails unless each of the clients saw what the action means to it: an
// RST, or nothing at all.
func WantAction(action event.Action, clients ...*world.Client) error {
	for _, c := range clients {
		if c.Answered() {
			return fmt.Errorf("the SYN of client %s to %s was answered", c.Local,
				c.Remote)
		}
		if c.WasReset() != (action == event.ActionReset) {
			return fmt.Errorf("client %s of %s saw an RST: %t; expected %v", c.Local,
				c.Remote, c.WasReset(), action)
		}
	}
	return nil
}

// WantReset fails unless all of the clients got an RST.
func WantReset(what string, clients []*world.Client) error {
	if reset, _ := Split(clients, (*world.Client).WasReset); len(reset) != len(clients) {
		return fmt.Errorf("%s: %d of %d clients were reset, expected all", what, len(reset),
			len(clients))
	}
	return nil
}

// WantNoReset fails when one of the clients got an RST.
func WantNoReset(what string, clients []*world.Client) error {
	if reset, _ := Split(clients, (*world.Client).WasReset); len(reset) != 0 {
		return fmt.Errorf("%s: %d of %d clients were reset, expected none", what,
			len(reset), len(clients))
	}
	return nil
}

// Challenged reports whether the client got a bare ACK: the kernel answers a
// packet outside the window of a half-open handshake with one.
func Challenged(c *world.Client) bool {
	c.Drain()
	for _, s := range c.Others {
		if s.Flags == world.FlagACK {
			return true
		}
	}
	return false
}

// Counters completes a set of counters: what it does not name does not move.
func Counters(moved map[event.Counter]uint64) map[event.Counter]uint64 {
	all := make(map[event.Counter]uint64, event.NumCounters)
	for c := range event.NumCounters {
		all[c] = moved[c]
	}
	return all
}

// Since returns how far the namespace's counters moved.
func Since(w *world.World, before map[event.Counter]uint64) (map[event.Counter]uint64, error) {
	after, err := w.Counters()
	if err != nil {
		return nil, err
	}
	for c := range after {
		after[c] -= before[c]
	}
	return after, nil
}

// WantAnswers fails unless exactly n of the clients got a SYN-ACK.
func WantAnswers(clients []*world.Client, n int) error {
	answered, _ := Split(clients, (*world.Client).Answered)
	if len(answered) != n {
		return fmt.Errorf("%d of %d SYNs were answered, expected %d", len(answered),
			len(clients), n)
	}
	return nil
}
