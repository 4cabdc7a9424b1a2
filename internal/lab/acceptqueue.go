// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/synspy/synspy/internal/event"
)

// The scenarios' port, and where their servers listen.
const port = 8080

var (
	any4    = netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	any6    = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	server4 = netip.AddrPortFrom(ServerAddr4, port)
	server6 = netip.AddrPortFrom(ServerAddr6, port)
)

// backlog of most scenarios' listen(). The queue holds one more: the test is
// sk_ack_backlog > sk_max_ack_backlog (sk_acceptq_is_full), not >=.
const (
	backlog  = 3
	capacity = backlog + 1
)

var overfull = Queue{Len: capacity, Limit: backlog}

// idleServer starts a process that listens and never accepts.
func (w *World) idleServer(addr netip.AddrPort, backlog int) (*Server, error) {
	return w.StartServer(ServerConfig{Listeners: []ListenConfig{{Addr: addr, Backlog: backlog}}})
}

// fullServer starts one whose accept queue is full.
func (w *World) fullServer(ctx context.Context) (*Server, error) {
	server, err := w.idleServer(any4, backlog)
	if err != nil {
		return nil, err
	}
	return server, w.Handshakes(ctx, server4, capacity)
}

func playAcceptQueueFullSyn(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := w.fullServer(ctx)
	if err != nil {
		return none, err
	}
	dropped, err := w.Burst(ctx, server4, 4)
	if err != nil {
		return none, err
	}
	// The last one has IPv4 options: its TCP header is not at byte 20.
	last := w.Client(server4)
	last.IPOptions = []byte{1, 1, 1, 0} // three no-operations and the end
	if err := last.SYN(); err != nil {
		return none, err
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	dropped = append(dropped, last)
	if err := wantAnswers(dropped, 0); err != nil {
		return none, err
	}
	log("%d handshakes filled the accept queue of listen(%d); %d SYNs got no answer", capacity, backlog, len(dropped))

	n := len(dropped)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: n,
			Listener: any4, AcceptQueue: overfull, Clients: addresses(dropped), Attempts: first(n), PIDs: []int{server.PID},
		}},
		Counters: counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(n),
			event.CounterListenDrops:     uint64(n),
		}),
		Syns: w.Syns(), Handshakes: n,
	}
	e.owners(server)
	return e, nil
}

func playAcceptQueueFullAck(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	return playOverflowAtAck(ctx, w, log, any4, server4)
}

func playAcceptQueueFullIPv6(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	return playOverflowAtAck(ctx, w, log, any6, server6)
}

func playAcceptQueueFullV4Mapped(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	return playOverflowAtAck(ctx, w, log, any6, server4)
}

// playOverflowAtAck sends 10 SYNs while the accept queue is empty, then the 10
// ACKs, then 5 more SYNs.
//
// Of the 10 SYN-ACKs only the first few belong to a request in the SYN queue,
// whose limit is the same backlog; the others are cookies. How many differs:
// inet_csk_reqsk_queue_is_full has been >= (3 requests) and > (4 requests).
// Neither the version nor a counter is asked: the SYN-ACKs themselves say
// which they are (Client.Cookie).
//
// The cookies' ACKs go first. They fill the accept queue, two or three of them
// are lost in it, and so are all ACKs of requests. The latter is what makes
// the last step a trap: the requests stay (tcp_abort_on_overflow=0), the SYN
// queue is still full, and tcp_conn_request counts TCPReqQFullDoCookies for
// each of the 5 SYNs before it looks at the accept queue and drops them. No
// cookie is sent for those, so SyncookiesSent does not move.
func playOverflowAtAck(ctx context.Context, w *World, log func(string, ...any), listener, address netip.AddrPort) (Expectation, error) {
	const total, more = 10, 5
	var none Expectation
	if err := w.sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_abort_on_overflow", "0"); err != nil {
		return none, err
	}
	server, err := w.idleServer(listener, backlog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, address, total)
	if err != nil {
		return none, err
	}
	if err := wantAnswers(clients, total); err != nil {
		return none, err
	}
	cookies, requests := split(clients, (*Client).Cookie)
	if len(cookies) < capacity || len(requests) == 0 {
		return none, fmt.Errorf("%d cookies and %d requests answered %d SYNs: the scenario needs %d cookies and a request", len(cookies), len(requests), total, capacity)
	}
	ordered := append(cookies[:len(cookies):len(cookies)], requests...)
	for _, c := range ordered {
		if err := c.ACK(); err != nil {
			return none, err
		}
	}
	lostAcks := ordered[capacity:]
	lostSyns, err := w.Burst(ctx, address, more)
	if err != nil {
		return none, err
	}
	if err := wantAnswers(lostSyns, 0); err != nil {
		return none, err
	}
	if reset, _ := split(clients, (*Client).WasReset); len(reset) > 0 {
		return none, fmt.Errorf("%d clients were reset with tcp_abort_on_overflow=0", len(reset))
	}
	log("%d SYNs answered, %d of them by cookies; %d ACKs filled the accept queue of listen(%d), %d were lost; %d further SYNs got no answer",
		total, len(cookies), capacity, backlog, len(lostAcks), more)

	lost := uint64(len(lostAcks) + more)
	e := Expectation{
		Records: []Expect{
			{
				Cause: event.CauseAcceptQueueFull, Stage: event.StageAck, Action: event.ActionDropped, Count: len(lostAcks),
				Listener: listener, AcceptQueue: overfull, Clients: addresses(lostAcks), Attempts: first(len(lostAcks)), PIDs: []int{server.PID},
			},
			{
				Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: more,
				Listener: listener, AcceptQueue: overfull, Clients: addresses(lostSyns), Attempts: first(more), PIDs: []int{server.PID},
			},
		},
		Counters: counters(map[event.Counter]uint64{
			event.CounterListenOverflows:      lost,
			event.CounterListenDrops:          lost,
			event.CounterTCPReqQFullDoCookies: uint64(len(cookies) + more),
			event.CounterSyncookiesSent:       uint64(len(cookies)),
			// cookie_v4_check counts a good cookie before it looks at the queue.
			event.CounterSyncookiesRecv: uint64(len(cookies)),
		}),
		Cookies: len(cookies), Syns: w.Syns(), Handshakes: int(lost),
	}
	e.owners(server)
	return e, nil
}

// playAcceptQueueFullAckReset stays within the SYN queue, so that no cookie is
// involved: an ACK of a cookie is never reset. The accept queue takes backlog
// handshakes and is not full yet, so backlog further SYNs are answered; the
// first of their ACKs takes the last place.
func playAcceptQueueFullAckReset(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const backlog = 8
	var none Expectation
	if err := w.sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_abort_on_overflow", "1"); err != nil {
		return none, err
	}
	server, err := w.idleServer(any4, backlog)
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, server4, backlog); err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, server4, backlog)
	if err != nil {
		return none, err
	}
	if err := wantAnswers(clients, backlog); err != nil {
		return none, err
	}
	for _, c := range clients {
		if err := c.ACK(); err != nil {
			return none, err
		}
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	lost := clients[1:]
	if reset, _ := split(lost, (*Client).WasReset); len(reset) != len(lost) || clients[0].WasReset() {
		return none, fmt.Errorf("%d of %d lost clients saw an RST, and the one that fitted: %t", len(reset), len(lost), clients[0].WasReset())
	}
	log("%d of %d half-open clients were reset by their ACK", len(lost), len(clients))

	n := len(lost)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageAck, Action: event.ActionReset, Count: n,
			Listener: any4, AcceptQueue: Queue{Len: backlog + 1, Limit: backlog}, Clients: addresses(lost), Attempts: first(n), PIDs: []int{server.PID},
		}},
		Counters: counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(n),
			event.CounterListenDrops:     uint64(n),
			event.CounterEmbryonicRsts:   uint64(n), // tcp_check_req, after the reset
		}),
		Syns: w.Syns(), Handshakes: n,
	}
	e.owners(server)
	return e, nil
}

// playAcceptQueueFullCookieAck shows that tcp_abort_on_overflow does not apply
// to cookies: there is no request for tcp_check_req to reset, and cookie_v4_check
// drops the packet quietly (tcp_get_cookie_sock returns NULL).
func playAcceptQueueFullCookieAck(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const total = 10
	var none Expectation
	if err := w.sysctls("net.ipv4.tcp_syncookies", "2", "net.ipv4.tcp_abort_on_overflow", "1"); err != nil {
		return none, err
	}
	server, err := w.idleServer(any4, backlog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, server4, total)
	if err != nil {
		return none, err
	}
	if cookies, _ := split(clients, (*Client).Cookie); len(cookies) != total {
		return none, fmt.Errorf("%d of %d SYNs were answered by cookies with tcp_syncookies=2", len(cookies), total)
	}
	for _, c := range clients {
		if err := c.ACK(); err != nil {
			return none, err
		}
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	if reset, _ := split(clients, (*Client).WasReset); len(reset) != 0 {
		return none, fmt.Errorf("%d cookie clients were reset", len(reset))
	}
	lost := clients[capacity:]
	log("%d cookies sent and acknowledged; %d ACKs fitted, %d vanished without an RST", total, capacity, len(lost))

	n := len(lost)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageAck, Action: event.ActionDropped, Count: n,
			Listener: any4, AcceptQueue: overfull, Clients: addresses(lost), Attempts: first(n), PIDs: []int{server.PID},
		}},
		Counters: counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(n),
			event.CounterListenDrops:     uint64(n),
			// tcp_syn_flood_action counts it although the SYN queue is empty.
			event.CounterTCPReqQFullDoCookies: total,
			event.CounterSyncookiesSent:       total,
			event.CounterSyncookiesRecv:       total,
		}),
		Cookies: total, Syns: w.Syns(), Handshakes: n,
	}
	e.owners(server)
	return e, nil
}
