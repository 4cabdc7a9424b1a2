// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// maxElsewhere bounds the listeners that are listed on the ports of SYNs that found none.
const maxElsewhere = 64

// Elsewhere lists the listeners that have the port of a SYN that found none, those of the same
// namespace first. throughout reports whether a socket that listens at the end of the window, by
// its inode, did so when it began.
func Elsewhere(s *session.Session, places *Places, deaths Deaths,
	throughout func(inode uint64) bool) (list []evidence.Elsewhere) {
	ports := make(map[uint16]bool)
	spaces := make(map[uint64]bool)
	for key := range deaths {
		if key.Cause == event.CauseNoListener && key.NetNS != 0 {
			ports[key.Server.Port], spaces[key.NetNS] = true, true
		}
	}
	if len(ports) == 0 {
		return nil
	}
	e := elsewhere{s, places, throughout}
	sockets := s.Listeners.Inodes()
	for netns := range spaces {
		list = append(list, e.listening(netns, ports, sockets)...)
	}
	all := s.Listeners.List()
	slices.SortFunc(all, func(a, b message.Listener) int {
		return cmp.Or(cmp.Compare(a.NetNS, b.NetNS), cmp.Compare(a.Inode, b.Inode))
	})
	for i := range all {
		if l := &all[i]; ports[l.Port] && !spaces[l.NetNS] && len(list) < maxElsewhere {
			list = append(list, e.listener(session.Described(l, false), l.Socket))
		}
	}
	slices.SortStableFunc(list, func(a, b evidence.Elsewhere) int {
		return cmp.Compare(rankOf(spaces[a.Listener.NetNS]),
			rankOf(spaces[b.Listener.NetNS]))
	})
	return list[:min(len(list), maxElsewhere)]
}

func rankOf(same bool) int {
	if same {
		return 0
	}
	return 1
}

// elsewhere is what it takes to describe a listener.
type elsewhere struct {
	session    *session.Session
	places     *Places
	throughout func(inode uint64) bool
}

// listening lists a namespace's listeners on these ports, with what decides whom the kernel's
// lookup chooses.
func (e *elsewhere) listening(netns uint64, ports map[uint16]bool,
	sockets map[uint64]uint64) (list []evidence.Elsewhere) {
	space := e.places.Space(netns)
	if space == nil {
		return nil
	}
	var found []kernel.Listening
	e.places.Enter(netns, func() (err error) {
		found, err = kernel.ListeningHere()
		return err
	})
	for _, s := range found {
		if !ports[s.Port] {
			continue
		}
		at := event.Listener{Addr: s.Addr, Port: s.Port, Cookie: s.Cookie, Inode: s.Inode,
			NetNS: netns}
		l := e.listener(&at, sockets[s.Inode])
		l.V6Only, l.Throughout = s.V6Only, e.throughout(s.Inode)
		if s.Iface != nil && *s.Iface != 0 {
			device := space.Devices[*s.Iface]
			l.Device = device.Name
			l.VRF = device.Kind == "vrf" || space.Devices[device.Master].Kind == "vrf"
		}
		list = append(list, l)
	}
	return list
}

func (e *elsewhere) listener(at *event.Listener, socket uint64) evidence.Elsewhere {
	l := evidence.Elsewhere{Listener: *at, Own: at.NetNS == e.places.Own}
	if space := e.places.Space(at.NetNS); space != nil {
		l.Enter = space.Enter
	}
	if socket != 0 {
		l.Processes = e.session.Owners.Processes(socket, kernel.Monotonic())
	}
	return l
}
