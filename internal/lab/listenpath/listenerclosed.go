// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// playListenerClosed closes one listener by close() and another by the end of
// its process. Either way inet_csk_listen_stop resets the queued children, in
// order, and leaves the half-open handshakes. An ACK of theirs finds the request
// and its closed listener, removes the request, looks again and finds nothing:
// the RST is that of a closed port (tcp_v4_rcv: no_tcp_socket).
//
// Processes are not expected: the one that closed holds nothing any more, and
// the other is gone.
func playListenerClosed(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const queued, halfOpen, backlog = 3, 2, 8
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		e := scenario.Expectation{Counters: scenario.Counters(nil)}
		var servers []*server.Server
		for i, end := range []struct {
			how   string
			close func(*server.Server) error
		}{{"closed its listener", (*server.Server).CloseListeners}, {"exited",
			(*server.Server).Close}} {
			listener := netip.AddrPortFrom(f.Listener.Addr(), world.Port+uint16(i))
			address := netip.AddrPortFrom(f.Server.Addr(), listener.Port())
			server, err := scenario.IdleServer(w, listener, backlog)
			if err != nil {
				return none, err
			}
			children := w.Clients(address, queued)
			for _, c := range children {
				if err := c.Handshake(ctx); err != nil {
					return none, err
				}
			}
			half, err := w.Burst(ctx, address, halfOpen)
			if err != nil {
				return none, err
			}
			if err := scenario.WantAnswers(half, halfOpen); err != nil {
				return none, err
			}
			if err := end.close(server); err != nil {
				return none, err
			}
			if err := w.Barrier(ctx); err != nil {
				return none, err
			}
			if err := scenario.WantReset("queued clients", children); err != nil {
				return none, err
			}
			if err := scenario.WantNoReset("half-open clients before their ACK",
				half); err != nil {
				return none, err
			}
			// Their timer would have removed them a second after the SYN.
			if err := w.WantQueues(0, halfOpen); err != nil {
				return none, err
			}
			if err := scenario.Each(ctx, w, half, (*world.Client).ACK); err != nil {
				return none, err
			}
			if err := scenario.WantReset("half-open clients", half); err != nil {
				return none, err
			}
			if err := w.WantQueues(0, 0); err != nil {
				return none, err
			}
			log("server %d %s: %d queued clients were reset at once, %d half-open ones by their ACK", server.PID, end.how, queued, halfOpen)
			e.Records = append(e.Records,
				scenario.Expect{
					Cause: event.CauseListenerClosed, Stage: event.StageClose,
					Action: event.ActionReset, Count: queued,
					Listener: listener, Clients: scenario.Addresses(children),
				},
				scenario.Expect{
					Cause: event.CauseListenerClosed, Stage: event.StageAck,
					Action: event.ActionReset, Count: halfOpen,
					Listener: listener, Clients: scenario.Addresses(half),
					Attempts: scenario.First(halfOpen),
				})
			servers = append(servers, server)
		}
		e.Syns = w.Syns()
		e.Owners(servers...)
		return e, nil
	}
}

// playListenerClosedTimer leaves the requests alone. Their first timer is due a
// second after the SYN; reqsk_timer_handler finds the listener not listening
// and removes them without a packet. The action is reset all the same: whatever the
// client sends next is answered by an RST.
func playListenerClosedTimer(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const halfOpen, backlog = 4, 16
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, clients, err := scenario.HalfOpen(ctx, w, f, backlog, halfOpen)
		if err != nil {
			return none, err
		}
		if err := server.CloseListeners(); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, halfOpen); err != nil {
			return none, err
		}
		waited, err := expire(ctx, w, clients, 1)
		if err != nil {
			return none, err
		}
		log("%d half-open handshakes without a listener were gone after %v; nothing was sent", halfOpen, waited)

		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseListenerClosed, Stage: event.StageTimer,
				Action: event.ActionReset, Count: halfOpen,
				Listener: f.Listener, Clients: scenario.Addresses(clients),
				AnyOrder: true,
			}},
			Counters: scenario.Counters(nil), Syns: w.Syns(),
		}
		e.Owners(server)
		return e, nil
	}
}

// playHandshakeExpired asks for one retransmission instead of none, so that the
// clients see what tells expiry apart from an early end: a second SYN-ACK.
func playHandshakeExpired(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const halfOpen, backlog = 4, 16
		var none scenario.Expectation
		if err := w.Sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_synack_retries",
			"1"); err != nil {
			return none, err
		}
		server, clients, err := scenario.HalfOpen(ctx, w, f, backlog, halfOpen)
		if err != nil {
			return none, err
		}
		waited, err := expire(ctx, w, clients, 2)
		if err != nil {
			return none, err
		}
		log("%d half-open handshakes expired after 2 SYN-ACKs each and %v", halfOpen,
			waited)

		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseHandshakeExpired, Stage: event.StageTimer,
				Action: event.ActionDropped, Count: halfOpen,
				Listener: f.Listener, Clients: scenario.Addresses(clients),
				AnyOrder: true, PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(nil), Syns: w.Syns(),
		}
		e.Owners(server)
		return e, nil
	}
}

// expire waits until the timers have ended all half-open handshakes, and checks
// that the clients saw so many SYN-ACKs and no RST.
func expire(ctx context.Context, w *world.World, clients []*world.Client,
	synAcks int) (time.Duration, error) {
	began := time.Now()
	if err := w.AwaitExpiry(ctx); err != nil {
		return 0, err
	}
	if err := w.Barrier(ctx); err != nil {
		return 0, err
	}
	for _, c := range clients {
		if c.SYNACKs() != synAcks {
			return 0, fmt.Errorf("client %s got %d SYN-ACKs, expected %d", c.Local,
				c.SYNACKs(), synAcks)
		}
	}
	if err := scenario.WantNoReset("expired handshakes", clients); err != nil {
		return 0, err
	}
	if err := w.WantQueues(0, 0); err != nil {
		return 0, err
	}
	return time.Since(began).Round(time.Millisecond), nil
}
