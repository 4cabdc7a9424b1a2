// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// playQueueAtLimit is the difference between > and >=: sk_acceptq_is_full is
// sk_ack_backlog > sk_max_ack_backlog, so a queue at its limit takes one more.
func playQueueAtLimit(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := w.idleServer(any4, backlog)
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, server4, backlog); err != nil {
		return none, err
	}
	if err := w.wantQueues(backlog, 0); err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, server4, 1); err != nil {
		return none, fmt.Errorf("the queue is at its limit: %w", err)
	}
	if err := w.wantQueues(backlog+1, 0); err != nil {
		return none, err
	}
	log("with %d handshakes queued in listen(%d), one more connected", backlog, backlog)
	dropped, err := w.unanswered(ctx, server4, 1)
	if err != nil {
		return none, err
	}
	log("and the next got no answer")

	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: 1,
			Listener: any4, AcceptQueue: overfull, Clients: addresses(dropped), Attempts: first(1), PIDs: []int{server.PID},
		}},
		Counters: counters(map[event.Counter]uint64{
			event.CounterListenOverflows: 1,
			event.CounterListenDrops:     1,
		}),
		Syns: w.Syns(), Handshakes: 1,
	}
	e.owners(server)
	return e, nil
}

// playSynBacklogReserve keeps the listener's own SYN queue out of reach, so
// that what is left is the reserve: max_syn_backlog - qlen < max_syn_backlog/4
// in tcp_conn_request, and no client here is proven (tcp_peer_is_proven wants a
// round trip time from an earlier connection, and the namespace is new).
func playSynBacklogReserve(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const maxSynBacklog, backlog, total = 16, 64, 20
		const admitted = maxSynBacklog - maxSynBacklog/4 + 1
		var none Expectation
		if err := w.sysctls("net.ipv4.tcp_syncookies", "0", "net.ipv4.tcp_max_syn_backlog", strconv.Itoa(maxSynBacklog)); err != nil {
			return none, err
		}
		server, err := w.idleServer(f.listener, backlog)
		if err != nil {
			return none, err
		}
		clients, err := w.Burst(ctx, f.server, total)
		if err != nil {
			return none, err
		}
		requests, dropped := split(clients, (*Client).Answered)
		if len(requests) != admitted {
			return none, fmt.Errorf("%d SYNs were answered with tcp_max_syn_backlog=%d, expected %d", len(requests), maxSynBacklog, admitted)
		}
		if err := wantNoReset("refused SYNs", clients); err != nil {
			return none, err
		}
		log("%d half-open handshakes left the reserve of tcp_max_syn_backlog=%d; %d SYNs got no answer", len(requests), maxSynBacklog, len(dropped))

		n := len(dropped)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseSynBacklogReserve, Stage: event.StageSyn, Action: event.ActionDropped, Count: n,
				Listener: f.listener, AcceptQueue: Queue{Len: 0, Limit: backlog}, SynQueue: Queue{Len: admitted, Limit: backlog},
				Clients: addresses(dropped), Attempts: first(n), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{event.CounterListenDrops: uint64(n)}),
			Syns:     w.Syns(), Handshakes: n,
		}
		e.owners(server)
		return e, nil
	}
}

// Bits of net.ipv4.tcp_fastopen (net/tcp.h).
const (
	fastopenServer   = 0x002 // TFO_SERVER_ENABLE
	fastopenNoCookie = 0x200 // TFO_SERVER_COOKIE_NOT_REQD
)

// playFastopenQueueFull lets clients use Fast Open without a cookie. A child
// that was made from a SYN alone counts against the queue until its handshake
// is finished (reqsk_fastopen_remove), so the first clients send no ACK.
func playFastopenQueueFull(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const queue, more, backlog = 2, 3, 16
		payload := []byte("GET /")
		var none Expectation
		if err := w.sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_fastopen", strconv.Itoa(fastopenServer|fastopenNoCookie)); err != nil {
			return none, err
		}
		server, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{{
			Addr: f.listener, Backlog: backlog,
			Options: []SocketOption{intOption(unix.IPPROTO_TCP, unix.TCP_FASTOPEN, queue)},
		}}})
		if err != nil {
			return none, err
		}
		clients := w.clients(f.server, queue+more)
		err = w.each(ctx, clients, func(c *Client) error {
			syn := c.syn()
			syn.payload = payload
			return c.sendSYN(c.frame(syn))
		})
		if err != nil {
			return none, err
		}
		opened, ordinary := clients[:queue], clients[queue:]
		for _, c := range opened {
			if c.Answered() || !acknowledgesData(c, len(payload)) {
				return none, fmt.Errorf("client %s: its SYN-ACK does not acknowledge the data of its SYN", c.Local)
			}
		}
		if err := wantAnswers(ordinary, more); err != nil { // acknowledging the SYN alone
			return none, err
		}
		// The children wait for accept() and are half-open at once.
		if err := w.wantQueues(queue, queue+more); err != nil {
			return none, err
		}
		if err := w.each(ctx, ordinary, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(queue+more, queue); err != nil {
			return none, err
		}
		if err := wantNoReset("Fast Open", clients); err != nil {
			return none, err
		}
		log("%d SYNs with data were accepted at once, %d got an ordinary SYN-ACK and connected", queue, more)

		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseFastopenQueueFull, Stage: event.StageSyn, Action: event.ActionIgnored, Count: more,
				Listener: f.listener, Clients: addresses(ordinary), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{event.CounterTCPFastOpenListenOverflow: more}),
			Syns:     w.Syns(),
		}
		e.owners(server)
		return e, nil
	}
}

// acknowledgesData reports whether a SYN-ACK arrived that acknowledges n bytes
// besides the SYN: a Fast Open child answers so.
func acknowledgesData(c *Client, n int) bool {
	c.drain()
	for _, s := range c.others {
		if s.flags == flagSYN|flagACK && s.ack == c.ISN+1+uint32(n) {
			return true
		}
	}
	return false
}

// playBadSyn plays the two refusals of tcp_rcv_state_process and
// tcp_v4/v6_conn_request. Only the second counts: SYN with FIN moves no counter
// of the closed list. A TUN device has no link layer, so that packets to
// broadcast and multicast addresses pass as packets to this host
// (tcp_v4_rcv: pkt_type) and get as far as the listener.
func playBadSyn(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const withFIN = 3
		nobodys := []string{"10.99.0.255", "255.255.255.255", "224.0.0.1"} // subnet, limited, all hosts
		if f.ipv6() {
			nobodys = []string{"ff02::1", "ff02::1"} // all nodes; IPv6 has no broadcast
		}
		var none Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := w.idleServer(f.listener, backlog)
		if err != nil {
			return none, err
		}
		clients := w.clients(f.server, withFIN)
		err = w.each(ctx, clients, func(c *Client) error {
			syn := c.syn()
			syn.flags |= flagFIN
			return c.sendSYN(c.frame(syn))
		})
		if err != nil {
			return none, err
		}
		for _, to := range nobodys {
			local, isn := w.nextClient(f.server)
			c := w.ClientFrom(local, netip.AddrPortFrom(netip.MustParseAddr(to), port), isn)
			if err := c.SYN(); err != nil {
				return none, err
			}
			clients = append(clients, c)
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if err := wantAnswers(clients, 0); err != nil {
			return none, err
		}
		if err := wantNoReset("bad SYNs", clients); err != nil {
			return none, err
		}
		log("%d SYNs with FIN and %d to broadcast or multicast addresses got no answer", withFIN, len(nobodys))

		n := len(clients)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseBadSyn, Stage: event.StageSyn, Action: event.ActionDropped, Count: n,
				Listener: f.listener, AcceptQueue: Queue{Len: 0, Limit: backlog}, Clients: addresses(clients), Attempts: first(n), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{event.CounterListenDrops: uint64(len(nobodys))}),
			Syns:     w.Syns(), Handshakes: n,
		}
		e.owners(server)
		return e, nil
	}
}

// timestamps is the option with its padding.
func timestamps(value, echo uint32) []byte {
	b := []byte{optionNOP, optionNOP, optionTimestamps, 10}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, value), echo)
}
