// SPDX-License-Identifier: Apache-2.0

package session

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/message"
)

// ListenerBuffer is the memory of a listener as records name it.
type ListenerBuffer struct {
	listener  event.Listener
	accept    event.Queue
	syn       event.SynQueue
	reuseport event.Reuseport
	cgroup    event.Cgroup
}

// Described is a listener as records name it, with or without its queues.
func Described(l *message.Listener, queues bool) *event.Listener {
	return new(ListenerBuffer).Describe(l, queues)
}

// Describe fills the room with a listener as records show it.
func (r *ListenerBuffer) Describe(l *message.Listener, queues bool) *event.Listener {
	if !l.Known {
		return nil
	}
	out := &r.listener
	*out = event.Listener{Addr: l.Addr, Port: l.Port, NetNS: l.NetNS, Proof: l.Proof,
		Key: l.Socket}
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
