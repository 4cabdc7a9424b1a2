// SPDX-License-Identifier: Apache-2.0

package holders

import "net/netip"

// acceptors tells which listeners processes accepted their connections from. A walk over open files
// comes to one process after the other.
type acceptors struct {
	accepted func(socket uint64, pid uint32, start uint64) // nil: nobody asks

	pid      uint32 // the process at hand
	start    uint64
	held     []heldPlace
	children []child
}

// heldPlace is a listener of the process at hand, and where it listens.
type heldPlace struct {
	socket uint64
	childPlace
	addr netip.Addr
}

// child is the local end of a connection that the process at hand accepted.
type child struct {
	childPlace
	addr netip.Addr
}

type childPlace struct {
	netns uint64
	port  uint16
}

// come ends the process at hand, if another one comes.
func (a *acceptors) come(pid uint32, start uint64) {
	if pid == a.pid && start == a.start {
		return
	}
	a.tell()
	a.pid, a.start = pid, start
	a.held, a.children = a.held[:0], a.children[:0]
}

func (a *acceptors) holds(socket, netns uint64, port uint16, addr netip.Addr) {
	a.held = append(a.held, heldPlace{socket, childPlace{netns, port}, addr})
}

func (a *acceptors) has(netns uint64, port uint16, addr netip.Addr) {
	a.children = append(a.children, child{childPlace{netns, port}, addr})
}

// tell tells whom the process accepted from. A connection that may be of several listeners that the
// process has, as of a SO_REUSEPORT group, tells nothing.
func (a *acceptors) tell() {
	if a.accepted == nil || len(a.children) == 0 {
		return
	}
	at := make(map[childPlace][]*heldPlace)
	for i := range a.held {
		h := &a.held[i]
		at[h.childPlace] = append(at[h.childPlace], h)
	}
	for _, c := range a.children {
		if socket := listenerFor(at[c.childPlace], c.addr); socket != 0 {
			a.accepted(socket, a.pid, a.start)
		}
	}
}

// listenerFor chooses the listener of a connection to addr as the kernel does: by the
// address, then the family; 0 where it is none of these, or one of several.
func listenerFor(held []*heldPlace, addr netip.Addr) uint64 {
	var socket uint64
	best := 0
	for _, l := range held {
		fit := 0
		switch {
		case l.addr.Unmap() == addr:
			fit = 3
		case !l.addr.IsUnspecified():
		case l.addr.Is4() == addr.Is4():
			fit = 2
		case addr.Is4():
			fit = 1
		}
		switch {
		case fit > best:
			best, socket = fit, l.socket
		case fit == best && l.socket != socket:
			socket = 0 // and stays it: of two that fit best, none is sure
		}
	}
	return socket
}
