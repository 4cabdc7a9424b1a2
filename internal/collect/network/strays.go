// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/watch"
	"github.com/synspy/synspy/internal/session"
)

// Strays watches for what is neither drop nor arrival: loaded in a goroutine as the window begins,
// since that takes a while on a slow machine, and attached when it may explain something.
type Strays struct {
	session *session.Session
	only    uint64        // the only network namespace asked about; 0 for all
	loaded  chan struct{} // closed once the next two are set
	strays  *watch.Strays
	err     error
	since   time.Time // zero: not begun
	// asked are addresses of the only namespace asked about; unasked says why SYNs to others of
	// its addresses are not watched.
	asked   []netip.Addr
	unasked string
}

// LoadStrays loads the programs in a goroutine. Only one network namespace is asked about, or,
// where that is 0, all are.
func LoadStrays(s *session.Session, only uint64) *Strays {
	w := &Strays{session: s, only: only, loaded: make(chan struct{})}
	go func() {
		defer close(w.loaded)
		if only != 0 {
			w.askedOf(NewPlaces(s.Log))
		}
		w.strays, w.err = s.Probe.LoadStrays(only, w.asked)
	}()
	return w
}

// askedOf reads the addresses that other namespaces may pass packets on to.
func (w *Strays) askedOf(places *Places) {
	w.unasked = "its addresses could not be read"
	places.Enter(w.only, func() error {
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
		if w.unasked = ""; len(w.asked) > watch.MaxStrayAddresses {
			w.unasked = fmt.Sprintf("it has more than %d addresses",
				watch.MaxStrayAddresses)
		}
		return nil
	})
}

// Watch attaches the programs, if they are loaded by now and not attached yet.
func (w *Strays) Watch() {
	if !w.since.IsZero() {
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

// Evidence returns what was seen of servers that wanted reports true of, and for how long it was
// watched, in ms; nil where it was not.
func (w *Strays) Evidence(places *Places, wanted func(event.Endpoint) bool) (list []evidence.Stray,
	ms *uint64, missing []evidence.Gap) {
	if w.since.IsZero() {
		return nil, nil, nil
	}
	err := w.err
	if err == nil {
		list, err = w.read(places, wanted)
	}
	if err != nil {
		return nil, nil, []evidence.Gap{{Need: evidence.NeedWayOut,
			Why: fmt.Sprintf("what this host drops on the way out was not watched: %v",
				err),
			By: session.EnteringTakes(err)}}
	}
	watched := uint64(time.Since(w.since).Milliseconds())
	if w.unasked != "" {
		missing = append(missing, evidence.Gap{Need: evidence.NeedForwarded,
			Why: "SYNs for the network namespace asked about that die in another one were not all watched: " + w.unasked})
	}
	return list, &watched, missing
}

// maxStrays bounds the kinds that are kept, those with most packets.
const maxStrays = 64

func (w *Strays) read(places *Places, wanted func(event.Endpoint) bool) (found []evidence.Stray,
	err error) {
	list, others, err := w.strays.Read()
	if err != nil {
		return nil, err
	}
	if others > 0 {
		w.session.Log.Debug("strays of more kinds than are told apart", "packets", others)
		if len(w.asked) > 0 && w.unasked == "" {
			w.unasked = "the kernel freed packets of more kinds than are told apart"
		}
	}
	list = slices.DeleteFunc(list, func(s watch.Stray) bool { return !wanted(s.Server) })
	slices.SortFunc(list, func(a, b watch.Stray) int {
		return int(min(b.Count, 1<<30)) - int(min(a.Count, 1<<30))
	})
	for i := range list[:min(len(list), maxStrays)] {
		if stray, ok := w.stray(&list[i], places); ok {
			found = append(found, stray)
		}
	}
	return found, nil
}

// stray says where one was seen. It is none where the namespace that it was seen in has the
// server's address as well: whose SYN it was is then not known. A switch that floods shows frames
// for all hosts: those for others are none.
func (w *Strays) stray(s *watch.Stray, places *Places) (stray evidence.Stray, ok bool) {
	stray = evidence.Stray{Answer: s.Answer, Segment: s.Segment, Syn: s.Syn, Server: s.Server,
		NetNS: s.NetNS, MAC: s.MAC, Kernel: s.Kernel, Count: s.Count}
	if s.Answer || s.Segment {
		stray.From = w.sender(s, places)
	}
	local := true
	if space := places.Space(s.NetNS); space != nil {
		stray.Enter, stray.Own = space.Enter, s.NetNS == places.Own
		if s.Device != 0 || s.Syn {
			places.Enter(s.NetNS, func() (err error) {
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
	if s.Syn && local || stray.Frame() && w.only != 0 && w.only != s.NetNS {
		return stray, false
	}
	return stray, !stray.Frame() || local
}

// sender is the namespace that a SYN-ACK was sent by, or that a client's segment is for: where it
// was freed, unless it came in there. Then it is the only one with a listener that may have sent
// it; 0 where that is not known.
func (w *Strays) sender(s *watch.Stray, places *Places) (from uint64) {
	if !s.CameIn {
		return s.NetNS
	}
	all := w.session.Listeners.List()
	for i := range all {
		l := &all[i]
		if l.Port != s.Server.Port || l.NetNS == from {
			continue
		}
		may := l.Addr.Unmap() == s.Server.Addr
		if l.Addr.IsUnspecified() {
			may = true // unless it is seen to be otherwise
			places.Enter(l.NetNS, func() (err error) {
				may, err = isLocal(s.Server.Addr)
				return err
			})
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

// here names the stray's device, in whose namespace it is called, and reports whether the server's
// address is one there.
func here(stray *evidence.Stray, device uint32) (local bool, err error) {
	d, err := net.InterfaceByIndex(int(device))
	if err != nil {
		return true, err
	}
	stray.Device, stray.OwnMAC = d.Name, d.HardwareAddr.String()
	return isLocal(stray.Server.Addr)
}

// isLocal reports whether the address is one of the calling thread's network namespace.
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

// Close frees what was loaded.
func (w *Strays) Close() error {
	<-w.loaded
	if w.strays == nil {
		return nil
	}
	return w.strays.Close()
}
