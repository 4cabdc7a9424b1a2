// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

func playAcceptQueueFullSyn(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := scenario.FullServer(ctx, w)
	if err != nil {
		return none, err
	}
	dropped, err := w.Burst(ctx, world.Server4, 4)
	if err != nil {
		return none, err
	}
	// The last one has IPv4 options: its TCP header is not at byte 20.
	last := w.Client(world.Server4)
	last.IPOptions = []byte{1, 1, 1, 0} // three no-operations and the end
	if err := last.SYN(); err != nil {
		return none, err
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	dropped = append(dropped, last)
	if err := scenario.WantAnswers(dropped, 0); err != nil {
		return none, err
	}
	log("%d handshakes filled the accept queue of listen(%d); %d SYNs got no answer",
		world.Capacity, world.Backlog, len(dropped))

	e := foundFull(w, dropped)
	e.Records[0].Listener, e.Records[0].AcceptQueue = world.Any4, scenario.Overfull
	e.Records[0].PIDs = []int{server.PID}
	e.Owners(server)
	return e, nil
}

func playAcceptQueueFullAck(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	return playOverflowAtAck(ctx, w, log, world.Any4, world.Server4)
}

func playAcceptQueueFullIPv6(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	return playOverflowAtAck(ctx, w, log, world.Any6, world.Server6)
}

func playAcceptQueueFullV4Mapped(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	return playOverflowAtAck(ctx, w, log, world.Any6, world.Server4)
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
func playOverflowAtAck(ctx context.Context, w *world.World, log func(string, ...any), listener,
	address netip.AddrPort) (scenario.Expectation, error) {
	const total, more = 10, 5
	var none scenario.Expectation
	if err := w.Sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_abort_on_overflow",
		"0"); err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, listener, world.Backlog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, address, total)
	if err != nil {
		return none, err
	}
	if err := scenario.WantAnswers(clients, total); err != nil {
		return none, err
	}
	cookies, requests := scenario.Split(clients, (*world.Client).Cookie)
	if len(cookies) < world.Capacity || len(requests) == 0 {
		return none, fmt.Errorf("%d cookies and %d requests answered %d SYNs: the scenario needs %d cookies and a request", len(cookies), len(requests), total, world.Capacity)
	}
	ordered := append(cookies[:len(cookies):len(cookies)], requests...)
	for _, c := range ordered {
		if err := c.ACK(); err != nil {
			return none, err
		}
	}
	lostAcks := ordered[world.Capacity:]
	lostSyns, err := w.Burst(ctx, address, more)
	if err != nil {
		return none, err
	}
	if err := scenario.WantAnswers(lostSyns, 0); err != nil {
		return none, err
	}
	if reset, _ := scenario.Split(clients, (*world.Client).WasReset); len(reset) > 0 {
		return none, fmt.Errorf("%d clients were reset with tcp_abort_on_overflow=0",
			len(reset))
	}
	log("%d SYNs answered, %d of them by cookies; %d ACKs filled the accept queue of listen(%d), %d were lost; %d further SYNs got no answer",
		total, len(cookies), world.Capacity, world.Backlog, len(lostAcks), more)

	lost := uint64(len(lostAcks) + more)
	e := scenario.Expectation{
		Records: []scenario.Expect{
			{
				Cause: event.CauseAcceptQueueFull, Stage: event.StageAck,
				Action: event.ActionDropped, Count: len(lostAcks),
				Listener: listener, AcceptQueue: scenario.Overfull,
				Clients:  scenario.Addresses(lostAcks),
				Attempts: scenario.First(len(lostAcks)),
				PIDs:     []int{server.PID},
			},
			{
				Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: more,
				Listener: listener, AcceptQueue: scenario.Overfull,
				Clients:  scenario.Addresses(lostSyns),
				Attempts: scenario.First(more), PIDs: []int{server.PID},
			},
		},
		Counters: scenario.Counters(map[event.Counter]uint64{
			event.CounterListenOverflows:      lost,
			event.CounterListenDrops:          lost,
			event.CounterTCPReqQFullDoCookies: uint64(len(cookies) + more),
			event.CounterSyncookiesSent:       uint64(len(cookies)),
			// cookie_v4_check counts a good cookie before it looks at the queue.
			event.CounterSyncookiesRecv: uint64(len(cookies)),
		}),
		Cookies: len(cookies), Syns: w.Syns(), Handshakes: int(lost),
	}
	e.Owners(server)
	return e, nil
}

// playAcceptQueueFullAckReset stays within the SYN queue, so that no cookie is
// involved: an ACK of a cookie is never reset. The accept queue takes backlog
// handshakes and is not full yet, so backlog further SYNs are answered; the
// first of their ACKs takes the last place.
func playAcceptQueueFullAckReset(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const backlog = 8
	var none scenario.Expectation
	if err := w.Sysctls("net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_abort_on_overflow",
		"1"); err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, world.Any4, backlog)
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, world.Server4, backlog); err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, world.Server4, backlog)
	if err != nil {
		return none, err
	}
	if err := scenario.WantAnswers(clients, backlog); err != nil {
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
	if reset, _ := scenario.Split(lost, (*world.Client).WasReset); len(reset) != len(lost) ||
		clients[0].WasReset() {
		return none, fmt.Errorf("%d of %d lost clients saw an RST, and the one that fitted: %t", len(reset), len(lost), clients[0].WasReset())
	}
	log("%d of %d half-open clients were reset by their ACK", len(lost), len(clients))

	n := len(lost)
	e := scenario.Expectation{
		Records: []scenario.Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageAck,
			Action: event.ActionReset, Count: n,
			Listener: world.Any4, AcceptQueue: scenario.Queue{Len: backlog + 1,
				Limit: backlog}, Clients: scenario.Addresses(lost), Attempts: scenario.First(n), PIDs: []int{server.PID},
		}},
		Counters: scenario.Counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(n),
			event.CounterListenDrops:     uint64(n),
			event.CounterEmbryonicRsts:   uint64(n), // tcp_check_req, after the reset
		}),
		Syns: w.Syns(), Handshakes: n,
	}
	e.Owners(server)
	return e, nil
}

// playAcceptQueueFullCookieAck shows that tcp_abort_on_overflow does not apply
// to cookies: there is no request for tcp_check_req to reset, and cookie_v4_check
// drops the packet quietly (tcp_get_cookie_sock returns NULL).
func playAcceptQueueFullCookieAck(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const total = 10
	var none scenario.Expectation
	if err := w.Sysctls("net.ipv4.tcp_syncookies", "2", "net.ipv4.tcp_abort_on_overflow",
		"1"); err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, world.Any4, world.Backlog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, world.Server4, total)
	if err != nil {
		return none, err
	}
	if cookies, _ := scenario.Split(clients, (*world.Client).Cookie); len(cookies) != total {
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
	if reset, _ := scenario.Split(clients, (*world.Client).WasReset); len(reset) != 0 {
		return none, fmt.Errorf("%d cookie clients were reset", len(reset))
	}
	lost := clients[world.Capacity:]
	log("%d cookies sent and acknowledged; %d ACKs fitted, %d vanished without an RST", total,
		world.Capacity, len(lost))

	n := len(lost)
	e := scenario.Expectation{
		Records: []scenario.Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageAck,
			Action: event.ActionDropped, Count: n,
			Listener: world.Any4, AcceptQueue: scenario.Overfull,
			Clients: scenario.Addresses(lost), Attempts: scenario.First(n),
			PIDs: []int{server.PID},
		}},
		Counters: scenario.Counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(n),
			event.CounterListenDrops:     uint64(n),
			// tcp_syn_flood_action counts it although the SYN queue is empty.
			event.CounterTCPReqQFullDoCookies: total,
			event.CounterSyncookiesSent:       total,
			event.CounterSyncookiesRecv:       total,
		}),
		Cookies: total, Syns: w.Syns(), Handshakes: n,
	}
	e.Owners(server)
	return e, nil
}

// foundFull expects that the clients' SYNs were dropped for a full accept queue. Which listener's,
// the caller adds.
func foundFull(w *world.World, dropped []*world.Client) scenario.Expectation {
	n := len(dropped)
	return scenario.Expectation{
		Records: []scenario.Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
			Action: event.ActionDropped, Count: n,
			Clients: scenario.Addresses(dropped), Attempts: scenario.First(n),
		}},
		Counters: scenario.Counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(n),
			event.CounterListenDrops:     uint64(n),
		}),
		Syns: w.Syns(), Handshakes: n,
	}
}
