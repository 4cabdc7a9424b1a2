// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// spoiled sends the ACK of every client after spoil has changed it.
func (w *World) spoiled(ctx context.Context, clients []*Client, spoil func(c *Client, ack *segment)) error {
	return w.each(ctx, clients, func(c *Client) error {
		ack, err := c.next(flagACK, nil)
		if err != nil {
			return err
		}
		spoil(c, &ack)
		return c.send(ack)
	})
}

// playBadHandshakeAckReset turns cookies off, so that no ACK is taken for a bad
// cookie. tcp_check_req hands an ACK with a wrong number to the listener, which
// resets it as it does any stray ACK (tcp_rcv_state_process); the request
// survives. A second SYN inside the window is reset by tcp_check_req itself,
// which then removes the request (EmbryonicRsts).
func playBadHandshakeAckReset(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const each, backlog = 2, 16
		var none Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "0"); err != nil {
			return none, err
		}
		server, clients, err := w.halfOpen(ctx, f, backlog, 2*each)
		if err != nil {
			return none, err
		}
		wrong, again := clients[:each], clients[each:]
		if err := w.spoiled(ctx, wrong, func(_ *Client, ack *segment) { ack.ack += 1000 }); err != nil {
			return none, err
		}
		strangers := w.clients(f.server, each)
		err = w.each(ctx, strangers, func(c *Client) error {
			return c.send(segment{seq: c.ISN + 1, ack: 0x7a5a5a5a, flags: flagACK})
		})
		if err != nil {
			return none, err
		}
		if err := w.wantQueues(0, 2*each); err != nil {
			return none, err
		}
		err = w.each(ctx, again, func(c *Client) error {
			syn := c.syn()
			syn.seq += 11
			return c.sendSYN(c.frame(syn))
		})
		if err != nil {
			return none, err
		}
		reset := append(append(wrong[:each:each], strangers...), again...)
		if err := wantReset("packets that fit no handshake", reset); err != nil {
			return none, err
		}
		if err := w.wantQueues(0, each); err != nil {
			return none, err
		}
		if err := w.each(ctx, wrong, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(each, 0); err != nil {
			return none, err
		}
		log("%d wrong ACKs, %d stray ACKs and %d further SYNs were reset; the clients of the wrong ACKs then connected", each, each, each)

		n := len(reset)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseBadHandshakeAck, Stage: event.StageAck, Action: event.ActionReset, Count: n,
				Listener: f.listener, Clients: addresses(reset), Attempts: first(n), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{event.CounterEmbryonicRsts: each}),
			Syns:     w.Syns(), Handshakes: n,
		}
		e.owners(server)
		return e, nil
	}
}

// playBadHandshakeAck plays what tcp_check_req swallows. Two things differ
// between kernels, and the answers say which it is:
//   - an echo of a timestamp that was never sent is refused from 6.15 on
//     (TSECRRejected) and passes for a good ACK before;
//   - an RST inside the window that is not exactly next gets a challenge ACK in
//     newer kernels, stable updates included, and the handshake survives. In
//     others it ends it like an exact one (EmbryonicRsts).
//
// Either RST is a dropped packet.
func playBadHandshakeAck(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const backlog = 16
		var none Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := w.idleServer(f.listener, backlog)
		if err != nil {
			return none, err
		}
		// Each sends one bad packet: its first, in the order of the slice.
		bad := []struct {
			what       string
			spoil      func(c *Client, s *segment)
			challenged bool // answered by an ACK, and the handshake survives
		}{
			{"old timestamp", func(c *Client, s *segment) {
				s.options = timestamps(c.ISN-1000, echoed(c))
			}, true},
			{"sequence number ahead of the window", func(_ *Client, s *segment) { s.seq += 1 << 20 }, true},
			{"sequence number behind the window", func(_ *Client, s *segment) { s.seq -= 5000 }, true},
			{"exact RST", func(_ *Client, s *segment) { s.flags, s.ack = flagRST, 0 }, false},
			{"exact RST of another client", func(_ *Client, s *segment) { s.flags, s.ack = flagRST, 0 }, false},
			{"inexact RST", func(_ *Client, s *segment) { s.flags, s.ack, s.seq = flagRST, 0, s.seq+100 }, false},
			{"echo of no timestamp", func(c *Client, s *segment) {
				s.options = timestamps(c.ISN+1, echoed(c)+1<<20)
			}, false},
		}
		const inexact, echo = 5, 6 // of them: kernels differ
		clients := w.clients(f.server, len(bad))
		clients[0].Timestamps, clients[echo].Timestamps = true, true
		if err := w.each(ctx, clients, (*Client).SYN); err != nil {
			return none, err
		}
		if err := wantAnswers(clients, len(bad)); err != nil {
			return none, err
		}
		for i, c := range clients {
			if err := w.spoiled(ctx, []*Client{c}, bad[i].spoil); err != nil {
				return none, err
			}
			if i == inexact || i == echo {
				bad[i].challenged = challenged(c)
			}
			if challenged(c) != bad[i].challenged {
				return none, fmt.Errorf("%s: answered by an ACK: %t, expected %t", bad[i].what, challenged(c), bad[i].challenged)
			}
		}
		if err := wantNoReset("packets to drop quietly", clients); err != nil {
			return none, err
		}
		dropped, survivors, connected, embryonic := clients, 3, 0, 2
		if bad[inexact].challenged {
			survivors++
		} else {
			embryonic++
		}
		if bad[echo].challenged {
			survivors++
		} else { // taken for a good ACK
			dropped, connected = clients[:echo], 1
		}
		if err := w.wantQueues(connected, survivors); err != nil {
			return none, err
		}
		// Who survived can still connect.
		still, _ := split(clients, challenged)
		if err := w.each(ctx, still, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(connected+survivors, 0); err != nil {
			return none, err
		}
		log("%d packets for half-open handshakes were dropped quietly; %d handshakes ended by it, %d connected afterwards", len(dropped), embryonic, survivors)

		n := len(dropped)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseBadHandshakeAck, Stage: event.StageAck, Action: event.ActionDropped, Count: n,
				Listener: f.listener, Clients: addresses(dropped), Attempts: first(n), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{event.CounterEmbryonicRsts: uint64(embryonic)}),
			Syns:     w.Syns(), Handshakes: n,
		}
		e.owners(server)
		return e, nil
	}
}

// echoed is the timestamp of the client's SYN-ACK: what its ACK must echo.
func echoed(c *Client) uint32 {
	value, ok := c.synAck.option(optionTimestamps)
	if !ok || len(value) != 8 {
		return 0
	}
	return uint32(value[0])<<24 | uint32(value[1])<<16 | uint32(value[2])<<8 | uint32(value[3])
}

// playDeferAccept also has a client repeat its ACK, which is ignored again. A
// bare ACK raises the listener's sk_drops without being a drop.
func playDeferAccept(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const total, backlog, seconds = 4, 16, 30
		var none Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{{
			Addr: f.listener, Backlog: backlog,
			Options: []SocketOption{intOption(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds)},
		}}})
		if err != nil {
			return none, err
		}
		clients, err := w.Burst(ctx, f.server, total)
		if err != nil {
			return none, err
		}
		if err := wantAnswers(clients, total); err != nil {
			return none, err
		}
		ignored := append(clients[:total:total], clients[0])
		if err := w.each(ctx, ignored, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(0, total); err != nil {
			return none, err
		}
		if err := w.each(ctx, clients, func(c *Client) error { return c.Data([]byte("GET /")) }); err != nil {
			return none, err
		}
		if err := w.wantQueues(total, 0); err != nil {
			return none, err
		}
		if err := wantNoReset("bare ACKs", clients); err != nil {
			return none, err
		}
		log("%d bare ACKs were ignored; the data of %d clients connected them", len(ignored), total)

		n := len(ignored)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseDeferAccept, Stage: event.StageAck, Action: event.ActionIgnored, Count: n,
				Listener: f.listener, Clients: addresses(ignored), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{event.CounterTCPDeferAcceptDrop: uint64(n)}),
			Syns:     w.Syns(),
		}
		e.owners(server)
		return e, nil
	}
}
