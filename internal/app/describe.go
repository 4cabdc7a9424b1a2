// SPDX-License-Identifier: Apache-2.0

package app

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/probe"
)

// dropRoom is the memory of a record, and of all that it points to: a flood costs no allocation for each.
type dropRoom struct {
	drop           event.Drop
	client, server event.Endpoint
	device         event.Device
	connection     event.Connection
	listener       listenerRoom
	answer         owner.Answer
	packet         []byte
}

// describe makes the record: what the kernel said, and whose listener it is. It is valid until the room is used again.
func (t *trace) describe(m *probe.Message, room *dropRoom) *event.Drop {
	branch := m.Outcome.Branch()
	drop := &room.drop
	*drop = event.Drop{
		Header: event.Head("drop"), Time: t.wall(m.Time), Mono: m.Time, Cause: branch.Cause, Stage: branch.Stage,
		Action: branch.Action, Proof: m.Proof, Attempt: m.Attempt, NetNS: m.NetNS,
		Kernel: t.probe.Kernel(m), Listener: room.listener.describe(&m.Listener, true), ClientSees: m.Sees(), Unsent: m.Unsent,
	}
	if m.Device != 0 {
		room.device = event.Device{Index: m.Device}
		drop.Device = &room.device
	}
	if m.Met != "" {
		room.connection = event.Connection{State: m.Met, Inode: m.MetInode}
		drop.Connection = &room.connection
	}
	if len(m.Packet) > 0 {
		room.packet = append(room.packet[:0], m.Packet...)
		drop.Packet = room.packet
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
		room.client, room.server = m.Client, m.Server
		drop.Client, drop.Server = &room.client, &room.server
	}
	switch {
	case !m.Listener.Known:
	case m.Listener.Member:
		t.readAccepts(m.Listener.Socket, m.Time)
		drop.Processes = t.owners.Ask(&room.answer, m.Listener.Socket, m.Time)
	default:
		drop.Processes = t.owners.ProcessesOfGroup(t.listeners.group(&m.Listener), m.Time)
	}
	drop.Cgroup, drop.Container, drop.Pod = owner.Top(drop.Processes)
	return drop
}

// listenerRoom is the memory of a listener as records name it.
type listenerRoom struct {
	listener  event.Listener
	accept    event.Queue
	syn       event.SynQueue
	reuseport event.Reuseport
	cgroup    event.Cgroup
}

// described is a listener as records name it, with or without its queues.
func described(l *probe.Listener, queues bool) *event.Listener {
	return new(listenerRoom).describe(l, queues)
}

func (r *listenerRoom) describe(l *probe.Listener, queues bool) *event.Listener {
	if !l.Known {
		return nil
	}
	out := &r.listener
	*out = event.Listener{Addr: l.Addr, Port: l.Port, NetNS: l.NetNS, Proof: l.Proof, Key: l.Socket}
	if l.Member {
		out.Cookie, out.Inode = l.Cookie, l.Inode
	}
	if queues && l.Member {
		r.accept, r.syn = l.Accept, l.Syn
		out.AcceptQueue, out.SynQueue = &r.accept, &r.syn
	}
	if queues && l.Reuseport.Members > 0 {
		r.reuseport = l.Reuseport
		out.Reuseport = &r.reuseport
	}
	if l.Cgroup != 0 {
		r.cgroup = event.Cgroup{ID: l.Cgroup}
		out.Cgroup = &r.cgroup
	}
	return out
}
