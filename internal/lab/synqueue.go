// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"

	"github.com/synspy/synspy/internal/event"
)

const synBacklog = 8

// The SYN queue takes backlog or backlog+1 requests: stable updates changed
// inet_csk_reqsk_queue_is_full between >= and >, so the answers decide.
func checkSynQueue(requests int) error {
	if requests != synBacklog && requests != synBacklog+1 {
		return fmt.Errorf("the SYN queue of listen(%d) took %d requests", synBacklog, requests)
	}
	return nil
}

func playSynQueueFull(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const total = 20
	var none Expectation
	// A large tcp_max_syn_backlog keeps its last quarter, a drop cause of its
	// own with cookies off, out of reach.
	if err := w.sysctls("net.ipv4.tcp_syncookies", "0", "net.ipv4.tcp_max_syn_backlog", "4096"); err != nil {
		return none, err
	}
	server, err := w.idleServer(any4, synBacklog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, server4, total)
	if err != nil {
		return none, err
	}
	requests, dropped := split(clients, (*Client).Answered)
	if err := checkSynQueue(len(requests)); err != nil {
		return none, err
	}
	log("%d half-open handshakes filled the SYN queue of listen(%d); %d SYNs got no answer", len(requests), synBacklog, len(dropped))

	n := len(dropped)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseSynQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: n,
			Listener: any4, AcceptQueue: Queue{Len: 0, Limit: synBacklog}, SynQueue: Queue{Len: len(requests), Limit: synBacklog},
			Clients: addresses(dropped), Attempts: first(n), PIDs: []int{server.PID},
		}},
		Counters: counters(map[event.Counter]uint64{
			event.CounterTCPReqQFullDrop: uint64(n),
			event.CounterListenDrops:     uint64(n),
		}),
		Syns: w.Syns(), Handshakes: n,
	}
	e.owners(server)
	return e, nil
}

func playCookieAnsweredSyn(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const total = 20
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := w.idleServer(any4, synBacklog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, server4, total)
	if err != nil {
		return none, err
	}
	if err := wantAnswers(clients, total); err != nil {
		return none, err
	}
	cookies, requests := split(clients, (*Client).Cookie)
	if err := checkSynQueue(len(requests)); err != nil {
		return none, err
	}
	log("%d half-open handshakes filled the SYN queue of listen(%d); cookies answered %d SYNs", len(requests), synBacklog, len(cookies))

	n := uint64(len(cookies))
	e := Expectation{
		Counters: counters(map[event.Counter]uint64{
			event.CounterTCPReqQFullDoCookies: n,
			event.CounterSyncookiesSent:       n,
		}),
		Cookies: len(cookies), Syns: w.Syns(),
	}
	e.owners(server)
	return e, nil
}

func playRetransmit(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const times = 4
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := w.fullServer(ctx)
	if err != nil {
		return none, err
	}
	c := w.Client(server4)
	for range times {
		if err := c.SYN(); err != nil {
			return none, err
		}
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	if c.Answered() {
		return none, fmt.Errorf("a full accept queue answered client %s", c.Local)
	}
	log("client %s sent its SYN %d times and got no answer", c.Local, times)

	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: times,
			Listener: any4, AcceptQueue: overfull, Clients: addresses([]*Client{c, c, c, c}), Attempts: []int{1, 2, 3, 4}, PIDs: []int{server.PID},
		}},
		Counters: counters(map[event.Counter]uint64{
			event.CounterListenOverflows: times,
			event.CounterListenDrops:     times,
		}),
		Syns: w.Syns(), Handshakes: 1,
	}
	e.owners(server)
	return e, nil
}

// playSynRetransmitAnswered sends one SYN four times, then finishes the
// handshake. The three repeats meet the request: tcp_check_req sends its
// SYN-ACK again unless tcp_oow_rate_limited holds it back, and frees the SYN.
func playSynRetransmitAnswered(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const times = 4
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := w.idleServer(any4, backlog)
	if err != nil {
		return none, err
	}
	c := w.Client(server4)
	for range times {
		if err := c.SYN(); err != nil {
			return none, err
		}
	}
	if err := c.WaitSYNACK(ctx); err != nil {
		return none, err
	}
	if err := c.ACK(); err != nil {
		return none, err
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	log("client %s sent its SYN %d times, got %d SYN-ACKs, and connected", c.Local, times, c.SYNACKs())

	e := Expectation{Counters: counters(nil), Syns: w.Syns()}
	e.owners(server)
	return e, nil
}
