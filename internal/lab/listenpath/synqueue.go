// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"fmt"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

const synBacklog = 8

// The SYN queue takes backlog or backlog+1 requests: stable updates changed
// inet_csk_reqsk_queue_is_full between >= and >, so the answers decide.
func checkSynQueue(requests int) error {
	if requests != synBacklog && requests != synBacklog+1 {
		return fmt.Errorf("the SYN queue of listen(%d) took %d requests", synBacklog,
			requests)
	}
	return nil
}

func playSynQueueFull(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const total = 20
	var none scenario.Expectation
	// A large tcp_max_syn_backlog keeps its last quarter, a drop cause of its
	// own with cookies off, out of reach.
	if err := w.Sysctls("net.ipv4.tcp_syncookies", "0", "net.ipv4.tcp_max_syn_backlog",
		"4096"); err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, world.Any4, synBacklog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, world.Server4, total)
	if err != nil {
		return none, err
	}
	requests, dropped := scenario.Split(clients, (*world.Client).Answered)
	if err := checkSynQueue(len(requests)); err != nil {
		return none, err
	}
	log("%d half-open handshakes filled the SYN queue of listen(%d); %d SYNs got no answer",
		len(requests), synBacklog, len(dropped))

	n := len(dropped)
	e := scenario.Expectation{
		Records: []scenario.Expect{{
			Cause: event.CauseSynQueueFull, Stage: event.StageSyn,
			Action: event.ActionDropped, Count: n,
			Listener: world.Any4, AcceptQueue: scenario.Queue{Len: 0,
				Limit: synBacklog}, SynQueue: scenario.Queue{Len: len(requests),
				Limit: synBacklog},
			Clients: scenario.Addresses(dropped), Attempts: scenario.First(n),
			PIDs: []int{server.PID},
		}},
		Counters: scenario.Counters(map[event.Counter]uint64{
			event.CounterTCPReqQFullDrop: uint64(n),
			event.CounterListenDrops:     uint64(n),
		}),
		Syns: w.Syns(), Handshakes: n,
	}
	e.Owners(server)
	return e, nil
}

func playCookieAnsweredSyn(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const total = 20
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, world.Any4, synBacklog)
	if err != nil {
		return none, err
	}
	clients, err := w.Burst(ctx, world.Server4, total)
	if err != nil {
		return none, err
	}
	if err := scenario.WantAnswers(clients, total); err != nil {
		return none, err
	}
	cookies, requests := scenario.Split(clients, (*world.Client).Cookie)
	if err := checkSynQueue(len(requests)); err != nil {
		return none, err
	}
	log("%d half-open handshakes filled the SYN queue of listen(%d); cookies answered %d SYNs",
		len(requests), synBacklog, len(cookies))

	n := uint64(len(cookies))
	e := scenario.Expectation{
		Counters: scenario.Counters(map[event.Counter]uint64{
			event.CounterTCPReqQFullDoCookies: n,
			event.CounterSyncookiesSent:       n,
		}),
		Cookies: len(cookies), Syns: w.Syns(),
	}
	e.Owners(server)
	return e, nil
}

func playRetransmit(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const times = 4
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := scenario.FullServer(ctx, w)
	if err != nil {
		return none, err
	}
	c := w.Client(world.Server4)
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

	e := scenario.Expectation{
		Records: []scenario.Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
			Action: event.ActionDropped, Count: times,
			Listener: world.Any4, AcceptQueue: scenario.Overfull,
			Clients:  scenario.Addresses([]*world.Client{c, c, c, c}),
			Attempts: []int{1, 2, 3, 4}, PIDs: []int{server.PID},
		}},
		Counters: scenario.Counters(map[event.Counter]uint64{
			event.CounterListenOverflows: times,
			event.CounterListenDrops:     times,
		}),
		Syns: w.Syns(), Handshakes: 1,
	}
	e.Owners(server)
	return e, nil
}

// playSynRetransmitAnswered sends one SYN four times, then finishes the
// handshake. The three repeats meet the request: tcp_check_req sends its
// SYN-ACK again unless tcp_oow_rate_limited holds it back, and frees the SYN.
func playSynRetransmitAnswered(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const times = 4
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	server, err := scenario.IdleServer(w, world.Any4, world.Backlog)
	if err != nil {
		return none, err
	}
	c := w.Client(world.Server4)
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
	log("client %s sent its SYN %d times, got %d SYN-ACKs, and connected", c.Local, times,
		c.SYNACKs())

	e := scenario.Expectation{Counters: scenario.Counters(nil), Syns: w.Syns()}
	e.Owners(server)
	return e, nil
}
