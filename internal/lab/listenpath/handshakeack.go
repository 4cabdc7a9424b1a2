// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// spoiled sends the ACK of every client after spoil has changed it.
func spoiled(ctx context.Context, w *world.World, clients []*world.Client,
	spoil func(c *world.Client, ack *world.Segment)) error {
	return scenario.Each(ctx, w, clients, func(c *world.Client) error {
		ack, err := c.Next(world.FlagACK, nil)
		if err != nil {
			return err
		}
		spoil(c, &ack)
		return c.Send(ack)
	})
}

// playBadHandshakeAckReset turns cookies off, so that no ACK is taken for a bad
// cookie. tcp_check_req hands an ACK with a wrong number to the listener, which
// resets it as it does any stray ACK (tcp_rcv_state_process); the request
// survives. A second SYN inside the window is reset by tcp_check_req itself,
// which then removes the request (EmbryonicRsts).
func playBadHandshakeAckReset(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const each, backlog = 2, 16
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "0"); err != nil {
			return none, err
		}
		server, clients, err := scenario.HalfOpen(ctx, w, f, backlog, 2*each)
		if err != nil {
			return none, err
		}
		wrong, again := clients[:each], clients[each:]
		if err := spoiled(ctx, w, wrong,
			func(_ *world.Client, ack *world.Segment) { ack.ACK += 1000 }); err != nil {
			return none, err
		}
		strangers := w.Clients(f.Server, each)
		err = scenario.Each(ctx, w, strangers, func(c *world.Client) error {
			return c.Send(world.Segment{Seq: c.ISN + 1, ACK: 0x7a5a5a5a,
				Flags: world.FlagACK})
		})
		if err != nil {
			return none, err
		}
		if err := w.WantQueues(0, 2*each); err != nil {
			return none, err
		}
		err = scenario.Each(ctx, w, again, func(c *world.Client) error {
			syn := c.SYNSegment()
			syn.Seq += 11
			return c.SendSYN(c.Frame(syn))
		})
		if err != nil {
			return none, err
		}
		reset := append(append(wrong[:each:each], strangers...), again...)
		if err := scenario.WantReset("packets that fit no handshake", reset); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, each); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, wrong, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(each, 0); err != nil {
			return none, err
		}
		log("%d wrong ACKs, %d stray ACKs and %d further SYNs were reset; the clients of the wrong ACKs then connected", each, each, each)

		n := len(reset)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseBadHandshakeAck, Stage: event.StageAck,
				Action: event.ActionReset, Count: n,
				Listener: f.Listener, Clients: scenario.Addresses(reset),
				Attempts: scenario.First(n), PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(
				map[event.Counter]uint64{event.CounterEmbryonicRsts: each}),
			Syns: w.Syns(), Handshakes: n,
		}
		e.Owners(server)
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
func playBadHandshakeAck(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const backlog = 16
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := scenario.IdleServer(w, f.Listener, backlog)
		if err != nil {
			return none, err
		}
		// Each sends one bad packet: its first, in the order of the slice.
		bad := []struct {
			what       string
			spoil      func(c *world.Client, s *world.Segment)
			challenged bool // answered by an ACK, and the handshake survives
		}{
			{"old timestamp", func(c *world.Client, s *world.Segment) {
				s.Options = timestamps(c.ISN-1000, echoed(c))
			}, true},
			{"sequence number ahead of the window",
				func(_ *world.Client, s *world.Segment) { s.Seq += 1 << 20 }, true},
			{"sequence number behind the window",
				func(_ *world.Client, s *world.Segment) { s.Seq -= 5000 }, true},
			{"exact RST", func(_ *world.Client, s *world.Segment) {
				s.Flags,
					s.ACK = world.FlagRST, 0
			}, false},
			{"exact RST of another client",
				func(_ *world.Client, s *world.Segment) {
					s.Flags,
						s.ACK = world.FlagRST, 0
				}, false},
			{"inexact RST", func(_ *world.Client, s *world.Segment) {
				s.Flags, s.ACK,
					s.Seq = world.FlagRST, 0, s.Seq+100
			}, false},
			{"echo of no timestamp", func(c *world.Client, s *world.Segment) {
				s.Options = timestamps(c.ISN+1, echoed(c)+1<<20)
			}, false},
		}
		const inexact, echo = 5, 6 // of them: kernels differ
		clients := w.Clients(f.Server, len(bad))
		clients[0].Timestamps, clients[echo].Timestamps = true, true
		if err := scenario.Each(ctx, w, clients, (*world.Client).SYN); err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(clients, len(bad)); err != nil {
			return none, err
		}
		for i, c := range clients {
			if err := spoiled(ctx, w, []*world.Client{c}, bad[i].spoil); err != nil {
				return none, err
			}
			if i == inexact || i == echo {
				bad[i].challenged = scenario.Challenged(c)
			}
			if scenario.Challenged(c) != bad[i].challenged {
				return none, fmt.Errorf("%s: answered by an ACK: %t, expected %t",
					bad[i].what, scenario.Challenged(c), bad[i].challenged)
			}
		}
		if err := scenario.WantNoReset("packets to drop quietly", clients); err != nil {
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
		if err := w.WantQueues(connected, survivors); err != nil {
			return none, err
		}
		// Who survived can still connect.
		still, _ := scenario.Split(clients, scenario.Challenged)
		if err := scenario.Each(ctx, w, still, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(connected+survivors, 0); err != nil {
			return none, err
		}
		log("%d packets for half-open handshakes were dropped quietly; %d handshakes ended by it, %d connected afterwards", len(dropped), embryonic, survivors)

		n := len(dropped)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseBadHandshakeAck, Stage: event.StageAck,
				Action: event.ActionDropped, Count: n,
				Listener: f.Listener, Clients: scenario.Addresses(dropped),
				Attempts: scenario.First(n), PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterEmbryonicRsts: uint64(embryonic)}),
			Syns: w.Syns(), Handshakes: n,
		}
		e.Owners(server)
		return e, nil
	}
}

// echoed is the timestamp of the client's SYN-ACK: what its ACK must echo.
func echoed(c *world.Client) uint32 {
	value, ok := c.SYNAck.Option(world.OptionTimestamps)
	if !ok || len(value) != 8 {
		return 0
	}
	return uint32(value[0])<<24 | uint32(value[1])<<16 | uint32(value[2])<<8 | uint32(value[3])
}

// playDeferAccept also has a client repeat its ACK, which is ignored again. A
// bare ACK raises the listener's sk_drops without being a drop.
func playDeferAccept(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const total, backlog, seconds = 4, 16, 30
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{{
			Addr: f.Listener, Backlog: backlog,
			Options: []server.SocketOption{server.IntOption(unix.IPPROTO_TCP,
				unix.TCP_DEFER_ACCEPT, seconds)},
		}}})
		if err != nil {
			return none, err
		}
		clients, err := w.Burst(ctx, f.Server, total)
		if err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(clients, total); err != nil {
			return none, err
		}
		ignored := append(clients[:total:total], clients[0])
		if err := scenario.Each(ctx, w, ignored, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, total); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, clients,
			func(c *world.Client) error {
				return c.Data([]byte("GET /"))
			}); err != nil {
			return none, err
		}
		if err := w.WantQueues(total, 0); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("bare ACKs", clients); err != nil {
			return none, err
		}
		log("%d bare ACKs were ignored; the data of %d clients connected them",
			len(ignored), total)

		n := len(ignored)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseDeferAccept, Stage: event.StageAck,
				Action: event.ActionIgnored, Count: n,
				Listener: f.Listener, Clients: scenario.Addresses(ignored),
				PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterTCPDeferAcceptDrop: uint64(n)}),
			Syns: w.Syns(),
		}
		e.Owners(server)
		return e, nil
	}
}
