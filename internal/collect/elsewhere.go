// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/session"
)

// maxElsewhere bounds the listeners that are listed on the ports of SYNs that found none.
const maxElsewhere = 64

// elsewhere lists the listeners that have the port of a SYN that found none, those of the same
// namespace first.
func (c *collector) elsewhere(places *deathPlaces) (list []evidence.Elsewhere) {
	ports := make(map[uint16]bool)
	spaces := make(map[uint64]bool)
	for key := range c.deaths {
		if key.cause == event.CauseNoListener && key.netns != 0 {
			ports[key.server.Port], spaces[key.netns] = true, true
		}
	}
	if len(ports) == 0 {
		return nil
	}
	sockets := c.session.Listeners.Inodes()
	for netns := range spaces {
		list = append(list, c.listening(places, netns, ports, sockets)...)
	}
	all := c.session.Listeners.List()
	slices.SortFunc(all, func(a, b probe.Listener) int {
		return cmp.Or(cmp.Compare(a.NetNS, b.NetNS), cmp.Compare(a.Inode, b.Inode))
	})
	for i := range all {
		if l := &all[i]; ports[l.Port] && !spaces[l.NetNS] && len(list) < maxElsewhere {
			list = append(list, c.elsewhereOf(places, session.Described(l, false),
				l.Socket))
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

// listening lists a namespace's listeners on these ports, with what decides whom the kernel's
// lookup chooses.
func (c *collector) listening(places *deathPlaces, netns uint64, ports map[uint16]bool,
	sockets map[uint64]uint64) (list []evidence.Elsewhere) {
	space := places.space(netns)
	if space == nil {
		return nil
	}
	var found []kernel.Listening
	places.enter(netns, space, func() (err error) {
		found, err = kernel.ListeningHere()
		return err
	})
	for _, s := range found {
		if !ports[s.Port] {
			continue
		}
		at := event.Listener{Addr: s.Addr, Port: s.Port, Cookie: s.Cookie, Inode: s.Inode,
			NetNS: netns}
		l := c.elsewhereOf(places, &at, sockets[s.Inode])
		l.V6Only, l.Throughout = s.V6Only, c.throughout(s.Inode)
		if s.Iface != nil && *s.Iface != 0 {
			device := space.devices[*s.Iface]
			l.Device = device.Name
			l.VRF = device.Kind == "vrf" || space.devices[device.Master].Kind == "vrf"
		}
		list = append(list, l)
	}
	return list
}

// throughout tells whether a socket that listens at the end did so when the window began.
func (c *collector) throughout(inode uint64) bool {
	for _, r := range c.Rows {
		if r.Listener.Inode == inode {
			return !r.born && r.closed == nil
		}
	}
	return false
}

func (c *collector) elsewhereOf(places *deathPlaces, at *event.Listener,
	socket uint64) evidence.Elsewhere {
	l := evidence.Elsewhere{Listener: *at, Own: at.NetNS == places.own}
	if space := places.space(at.NetNS); space != nil {
		l.Enter = space.enter
	}
	if socket != 0 {
		l.Processes = c.session.Owners.Processes(socket, kernel.Monotonic())
	}
	return l
}
