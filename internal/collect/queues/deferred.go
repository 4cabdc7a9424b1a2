// SPDX-License-Identifier: Apache-2.0

package queues

import (
	"errors"
	"net/netip"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// deferral follows the handshakes of one listener whose ACK TCP_DEFER_ACCEPT ignored: whether they
// stay half-open, as where the client waits for the server to speak.
type deferral struct {
	pending map[netip.AddrPort]*heldBack // by client
	done    evidence.Deferred
	next    time.Time // when to read again
	unseen  bool      // they could not be read, or there were too many
}

// heldBack is one such handshake.
type heldBack struct {
	since uint32 // when its ACK was ignored, ms since the start
	until uint32 // when it was last seen half-open
}

const (
	maxDeferred   = 4096
	deferredEvery = 250 * time.Millisecond
	// heldMs is how long a handshake is half-open after its ACK for its client to have waited.
	heldMs = 1000
)

// ignored takes a handshake's first ignored ACK.
func (d *deferral) ignored(client *event.Endpoint, at uint32) {
	if client == nil {
		return
	}
	key := netip.AddrPortFrom(client.Addr.Unmap(), client.Port)
	if d.pending == nil {
		d.pending = make(map[netip.AddrPort]*heldBack)
	}
	switch {
	case d.pending[key] != nil:
	case len(d.pending) >= maxDeferred:
		d.unseen = true
	default:
		d.pending[key] = &heldBack{since: at, until: at}
	}
}

// see takes the clients that are half-open at a time, ms since the start. Who is not among them any
// more was not held back longer than it was seen to be.
func (d *deferral) see(at uint32, halfOpen []netip.AddrPort) {
	still := make(map[netip.AddrPort]bool, len(halfOpen))
	for _, client := range halfOpen {
		still[client] = true
	}
	for client, h := range d.pending {
		if still[client] {
			h.until = max(h.until, at)
			continue
		}
		if at > h.since { // else its ACK is younger than what was looked at
			d.settle(h)
			delete(d.pending, client)
		}
	}
}

// settle counts a handshake, and reports whether it was held back.
func (d *deferral) settle(h *heldBack) bool {
	d.done.Watched++
	held := uint64(h.until - min(h.since, h.until))
	d.done.LongestMs = max(d.done.LongestMs, held)
	if held < heldMs {
		return false
	}
	d.done.Held++
	return true
}

// end is what the window showed, nil where that is not all.
func (d *deferral) end() *evidence.Deferred {
	if d.unseen {
		return nil
	}
	out := *d
	for _, h := range d.pending {
		if h.until < h.since+heldMs { // too young to say
			out.done.Young++
			continue
		}
		if out.settle(h) {
			out.done.AtEnd++
		}
	}
	return &out.done
}

// FollowDeferred reads which of the handshakes are still half-open, for listeners that have any to
// follow: of those whose turn it is, or of all.
func (w *Watch) FollowDeferred(now bool) {
	for _, r := range w.stirring {
		d := &r.deferral
		if len(d.pending) == 0 || d.unseen || !now && time.Now().Before(d.next) {
			continue
		}
		began := time.Now()
		at := w.Offset()
		halfOpen, err := halfOpen(r)
		if err != nil {
			w.session.Log.Debug("read half-open handshakes",
				"port", r.Listener.Port, "error", err)
			d.unseen = true
			continue
		}
		d.see(at, halfOpen)
		d.next = time.Now().Add(max(deferredEvery, 20*time.Since(began)))
	}
}

var errNoProcess = errors.New("no process is known in its network namespace")

// halfOpen lists a listener's, through a process in its namespace.
func halfOpen(r *Row) (clients []netip.AddrPort, err error) {
	err = errNoProcess
	for _, p := range r.Processes {
		if clients, err = kernel.HalfOpenClients(kernel.ProcessNetNS(p.PID),
			r.Listener.NetNS, r.Listener.Port); err == nil {
			break
		}
	}
	return clients, err
}
