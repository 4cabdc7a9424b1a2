// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// playListenerClosed closes one listener by close() and another by the end of
// its process. Either way inet_csk_listen_stop resets the queued children, in
// order, and leaves the half-open handshakes. An ACK of theirs finds the request
// and its closed listener, removes the request, looks again and finds nothing:
// the RST is that of a closed port (tcp_v4_rcv: no_tcp_socket).
//
// Processes are not expected: the one that closed holds nothing any more, and
// the other is gone.
func playListenerClosed(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const queued, halfOpen, backlog = 3, 2, 8
		var none Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		e := Expectation{Counters: counters(nil)}
		var servers []*Server
		for i, end := range []struct {
			how   string
			close func(*Server) error
		}{{"closed its listener", (*Server).CloseListeners}, {"exited", (*Server).Close}} {
			listener := netip.AddrPortFrom(f.listener.Addr(), port+uint16(i))
			address := netip.AddrPortFrom(f.server.Addr(), listener.Port())
			server, err := w.idleServer(listener, backlog)
			if err != nil {
				return none, err
			}
			children := w.clients(address, queued)
			for _, c := range children {
				if err := c.Handshake(ctx); err != nil {
					return none, err
				}
			}
			half, err := w.Burst(ctx, address, halfOpen)
			if err != nil {
				return none, err
			}
			if err := wantAnswers(half, halfOpen); err != nil {
				return none, err
			}
			if err := end.close(server); err != nil {
				return none, err
			}
			if err := w.Barrier(ctx); err != nil {
				return none, err
			}
			if err := wantReset("queued clients", children); err != nil {
				return none, err
			}
			if err := wantNoReset("half-open clients before their ACK", half); err != nil {
				return none, err
			}
			// Their timer would have removed them a second after the SYN.
			if err := w.wantQueues(0, halfOpen); err != nil {
				return none, err
			}
			if err := w.each(ctx, half, (*Client).ACK); err != nil {
				return none, err
			}
			if err := wantReset("half-open clients", half); err != nil {
				return none, err
			}
			if err := w.wantQueues(0, 0); err != nil {
				return none, err
			}
			log("server %d %s: %d queued clients were reset at once, %d half-open ones by their ACK", server.PID, end.how, queued, halfOpen)
			e.Records = append(e.Records,
				Expect{
					Cause: event.CauseListenerClosed, Stage: event.StageClose, Action: event.ActionReset, Count: queued,
					Listener: listener, Clients: addresses(children),
				},
				Expect{
					Cause: event.CauseListenerClosed, Stage: event.StageAck, Action: event.ActionReset, Count: halfOpen,
					Listener: listener, Clients: addresses(half), Attempts: first(halfOpen),
				})
			servers = append(servers, server)
		}
		e.Syns = w.Syns()
		e.owners(servers...)
		return e, nil
	}
}

// playListenerClosedTimer leaves the requests alone. Their first timer is due a
// second after the SYN; reqsk_timer_handler finds the listener not listening
// and removes them without a packet. The action is reset all the same: whatever the
// client sends next is answered by an RST.
func playListenerClosedTimer(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const halfOpen, backlog = 4, 16
		var none Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, clients, err := w.halfOpen(ctx, f, backlog, halfOpen)
		if err != nil {
			return none, err
		}
		if err := server.CloseListeners(); err != nil {
			return none, err
		}
		if err := w.wantQueues(0, halfOpen); err != nil {
			return none, err
		}
		waited, err := w.expire(ctx, clients, 1)
		if err != nil {
			return none, err
		}
		log("%d half-open handshakes without a listener were gone after %v; nothing was sent", halfOpen, waited)

		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseListenerClosed, Stage: event.StageTimer, Action: event.ActionReset, Count: halfOpen,
				Listener: f.listener, Clients: addresses(clients), AnyOrder: true,
			}},
			Counters: counters(nil), Syns: w.Syns(),
		}
		e.owners(server)
		return e, nil
	}
}

// playHandshakeExpired asks for one retransmission instead of none, so that the
// clients see what tells expiry apart from an early end: a second SYN-ACK.
func playHandshakeExpired(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const halfOpen, backlog = 4, 16
		var none Expectation
		if err := w.sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_synack_retries", "1"); err != nil {
			return none, err
		}
		server, clients, err := w.halfOpen(ctx, f, backlog, halfOpen)
		if err != nil {
			return none, err
		}
		waited, err := w.expire(ctx, clients, 2)
		if err != nil {
			return none, err
		}
		log("%d half-open handshakes expired after 2 SYN-ACKs each and %v", halfOpen, waited)

		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseHandshakeExpired, Stage: event.StageTimer, Action: event.ActionDropped, Count: halfOpen,
				Listener: f.listener, Clients: addresses(clients), AnyOrder: true, PIDs: []int{server.PID},
			}},
			Counters: counters(nil), Syns: w.Syns(),
		}
		e.owners(server)
		return e, nil
	}
}

// expire waits until the timers have ended all half-open handshakes, and checks
// that the clients saw so many SYN-ACKs and no RST.
func (w *World) expire(ctx context.Context, clients []*Client, synAcks int) (time.Duration, error) {
	began := time.Now()
	if err := w.awaitExpiry(ctx); err != nil {
		return 0, err
	}
	if err := w.Barrier(ctx); err != nil {
		return 0, err
	}
	for _, c := range clients {
		if c.SYNACKs() != synAcks {
			return 0, fmt.Errorf("client %s got %d SYN-ACKs, expected %d", c.Local, c.SYNACKs(), synAcks)
		}
	}
	if err := wantNoReset("expired handshakes", clients); err != nil {
		return 0, err
	}
	if err := w.wantQueues(0, 0); err != nil {
		return 0, err
	}
	return time.Since(began).Round(time.Millisecond), nil
}
