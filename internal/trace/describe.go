// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// dropBuffer is the memory of a record, and of all that it points to: a flood costs no allocation
// for each.
type dropBuffer struct {
	drop           event.Drop
	client, server event.Endpoint
	device         event.Device
	connection     event.Connection
	listener       session.ListenerBuffer
	answer         owner.Answer
	packet         []byte
}

// describe makes the record: what the kernel said, and whose listener it is. It is valid until the
// buffer is used again.
func (t *Trace) describe(m *message.Message, buffer *dropBuffer) *event.Drop {
	branch := m.Outcome.Branch()
	drop := &buffer.drop
	*drop = event.Drop{
		Header: event.Head("drop"), Time: t.wall(m.Time), Mono: m.Time, Cause: branch.Cause,
		Stage:  branch.Stage,
		Action: branch.Action, Proof: m.Proof, Attempt: m.Attempt, NetNS: m.NetNS,
		Kernel: t.Probe.Kernel(m), Listener: buffer.listener.Describe(&m.Listener,
			true), ClientSees: m.Sees(), Unsent: m.Unsent,
	}
	if m.Device != 0 {
		buffer.device = event.Device{Index: m.Device}
		drop.Device = &buffer.device
	}
	if m.Met != "" {
		buffer.connection = event.Connection{State: m.Met, Inode: m.MetInode}
		drop.Connection = &buffer.connection
	}
	if len(m.Packet) > 0 {
		buffer.packet = append(buffer.packet[:0], m.Packet...)
		drop.Packet = buffer.packet
	}
	if branch.Cause == event.CauseNoRouteBack { // what tells it from other ListenDrops
		route := "IpOutNoRoutes"
		if m.Family6 {
			route = "Ip6OutNoRoutes"
		}
		drop.Kernel.Counters = append(drop.Kernel.Counters, route)
	}
	if branch.Kind == event.KindCookie {
		drop.Type = "cookie"
	}
	if m.HasFlow {
		buffer.client, buffer.server = m.Client, m.Server
		drop.Client, drop.Server = &buffer.client, &buffer.server
	}
	switch {
	case !m.Listener.Known:
	case m.Listener.Member:
		t.ReadAccepts(m.Listener.Socket, m.Time)
		drop.Processes = t.Owners.Ask(&buffer.answer, m.Listener.Socket, m.Time)
	default:
		drop.Processes = t.Owners.ProcessesOfGroup(t.Listeners.Group(&m.Listener), m.Time)
	}
	drop.Cgroup, drop.Container, drop.Pod = owner.Top(drop.Processes)
	return drop
}

// nameHolders makes sure that the tables know who holds a record's listener and
// what their containers are called, as far as the record may wait for that.
func (t *Trace) nameHolders(m *message.Message, came uint64) error {
	t.RefreshHolders(m.Listener.Socket, m.Time, came)
	if t.Owners.AwaitsNames() {
		sockets := []uint64{m.Listener.Socket}
		if !m.Listener.Member {
			sockets = t.Listeners.Group(&m.Listener)
		}
		t.Owners.AwaitNames(session.RefreshWait-time.Duration(kernel.Monotonic()-came),
			sockets...)
	}
	return t.RejudgeRenamed()
}
