// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/session"
)

// strayWatch is the watch over what is neither drop nor arrival: loaded behind the caller's back as
// the window begins, since that takes a while on a slow machine, and attached when it may explain
// something.
type strayWatch struct {
	loaded chan struct{} // closed once the next two are set
	strays *probe.Strays
	err    error
	since  time.Time // zero: not begun
	// asked are addresses of the only namespace asked about; unasked says why SYNs to others of
	// its addresses are not watched.
	asked   []netip.Addr
	unasked string
}

func (c *collector) loadStrays() {
	w := &c.strays
	w.loaded = make(chan struct{})
	netns := c.options.Watch.Filter.NetNS
	go func() {
		defer close(w.loaded)
		if netns != 0 {
			w.askedOf(netns, c.newDeathPlaces())
		}
		w.strays, w.err = c.session.Probe.LoadStrays(netns, w.asked)
	}()
}

// askedOf reads the addresses that other namespaces may pass packets on to.
func (w *strayWatch) askedOf(netns uint64, places *deathPlaces) {
	w.unasked = "its addresses could not be read"
	space := places.space(netns)
	if space == nil {
		return
	}
	places.enter(netns, space, func() error {
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if prefix, ok := a.(*net.IPNet); ok && prefix.IP.IsGlobalUnicast() {
				if addr, ok := netip.AddrFromSlice(prefix.IP); ok {
					w.asked = append(w.asked, addr.Unmap())
				}
			}
		}
		if w.unasked = ""; len(w.asked) > probe.MaxStrayAddresses {
			w.unasked = fmt.Sprintf("it has more than %d addresses",
				probe.MaxStrayAddresses)
		}
		return nil
	})
}

// quietFor is how long nothing arrives before frames for other hosts are looked at.
const quietFor = time.Second

// watchStrays begins the watch once an answer goes unacknowledged, or nothing arrives: a SYN-ACK
// that is dropped here is sent again, or fails to be, and so are the clients' SYNs.
func (c *collector) watchStrays() {
	w := &c.strays
	if !w.since.IsZero() || !c.unanswered() && (c.syns > 0 || time.Since(c.start) < quietFor) {
		return
	}
	select {
	case <-w.loaded:
	default:
		return // at the next tick
	}
	if w.since = time.Now(); w.err == nil {
		w.err = w.strays.Watch()
	}
}

// unanswered tells whether some listener's SYN-ACK was sent again, or failed to be.
func (c *collector) unanswered() bool {
	for _, r := range c.stirring {
		if r.Listener.Syn.Len > r.Listener.Syn.Young {
			return true
		}
		for _, count := range r.counts {
			if count.Cause == event.CauseHandshakeExpired ||
				count.Cause == event.CauseICMPError {
				return true
			}
		}
	}
	return false
}

// strayed adds what the watch saw.
func (c *collector) strayed(places *deathPlaces) {
	w := &c.strays
	if w.since.IsZero() {
		return
	}
	err := w.err
	if err == nil {
		err = c.readStrays(places)
	}
	if err != nil {
		c.Evidence.Missing = append(c.Evidence.Missing,
			evidence.Gap{Need: evidence.NeedWayOut,
				Why: fmt.Sprintf("what this host drops on the way out was not watched: %v",
					err), By: session.EnteringTakes(err)})
		return
	}
	ms := uint64(time.Since(w.since).Milliseconds())
	c.Evidence.StraysMs = &ms
	if w.unasked != "" {
		c.Evidence.Missing = append(c.Evidence.Missing,
			evidence.Gap{Need: evidence.NeedForwarded,
				Why: "SYNs for the network namespace asked about that die in another one were not all watched: " + w.unasked})
	}
}

// maxStrays bounds the kinds that are kept, those with most packets.
const maxStrays = 64

func (c *collector) readStrays(places *deathPlaces) error {
	list, others, err := c.strays.strays.Read()
	if err != nil {
		return err
	}
	if others > 0 {
		c.session.Log.Debug("strays of more kinds than are told apart", "packets", others)
		if len(c.strays.asked) > 0 && c.strays.unasked == "" {
			c.strays.unasked = "the kernel freed packets of more kinds than are told apart"
		}
	}
	list = slices.DeleteFunc(list, func(s probe.Stray) bool { return !c.concerns(s.Server) })
	slices.SortFunc(list,
		func(a, b probe.Stray) int {
			return int(min(b.Count, 1<<30)) - int(min(a.Count,
				1<<30))
		})
	for _, s := range list[:min(len(list), maxStrays)] {
		stray := evidence.Stray{Answer: s.Answer, Segment: s.Segment, Syn: s.Syn,
			Server: s.Server, NetNS: s.NetNS, MAC: s.MAC, Kernel: s.Kernel, Count: s.Count}
		if s.Answer || s.Segment {
			stray.From = c.sender(&s, places)
		}
		local := true
		if space := places.space(s.NetNS); space != nil {
			stray.Enter, stray.Own = space.enter, s.NetNS == places.own
			if s.Device != 0 || s.Syn {
				places.enter(s.NetNS, space, func() (err error) {
					if s.Device == 0 {
						local, err = isLocal(s.Server.Addr)
						return err
					}
					local, err = here(&stray, s.Device)
					if err == nil && local && s.Segment {
						stray.From = s.NetNS
					}
					return err
				})
			}
		}
		if s.Syn && local {
			continue // that namespace has the address as well: whose SYN it was is not known
		}
		if only := c.options.Watch.Filter.NetNS; stray.Frame() && only != 0 &&
			only != s.NetNS {
			continue
		}
		if !stray.Frame() || local { // a switch that floods shows frames for all hosts
			c.Evidence.Strays = append(c.Evidence.Strays, stray)
		}
	}
	return nil
}

// sender is the namespace that a SYN-ACK was sent by, or that a client's segment is for: where it
// was freed, unless it came in there. Then it is the only one with a listener that may have sent
// it; 0 where that is not known.
func (c *collector) sender(s *probe.Stray, places *deathPlaces) (from uint64) {
	if !s.CameIn {
		return s.NetNS
	}
	all := c.session.Listeners.List()
	for i := range all {
		l := &all[i]
		if l.Port != s.Server.Port || l.NetNS == from {
			continue
		}
		may := l.Addr.Unmap() == s.Server.Addr
		if l.Addr.IsUnspecified() {
			may = true // unless it is seen to be otherwise
			if space := places.space(l.NetNS); space != nil {
				places.enter(l.NetNS, space, func() (err error) {
					may, err = isLocal(s.Server.Addr)
					return err
				})
			}
		}
		if may && from != 0 {
			return 0
		}
		if may {
			from = l.NetNS
		}
	}
	return from
}

// here names the stray's device, in whose namespace it is called, and tells whether the server's
// address is one there.
func here(stray *evidence.Stray, device uint32) (local bool, err error) {
	d, err := net.InterfaceByIndex(int(device))
	if err != nil {
		return true, err
	}
	stray.Device, stray.OwnMAC = d.Name, d.HardwareAddr.String()
	return isLocal(stray.Server.Addr)
}

// isLocal tells whether the address is one of the calling thread's network namespace.
func isLocal(addr netip.Addr) (bool, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return true, err
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool {
		prefix, ok := a.(*net.IPNet)
		return ok && prefix.IP.Equal(addr.AsSlice())
	}), nil
}

// concerns tells whether somebody listens on that port under watch, or the filter asks for it.
func (c *collector) concerns(to event.Endpoint) bool {
	for _, r := range c.Rows {
		if r.Listener.Port == to.Port {
			return true
		}
	}
	return slices.Contains(c.Evidence.Ports, to.Port)
}

// endStrays lets go of it.
func (c *collector) endStrays() error {
	w := &c.strays
	if w.loaded == nil {
		return nil
	}
	<-w.loaded
	if w.strays == nil {
		return nil
	}
	return w.strays.Close()
}
