// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// lsmScenarios are those of a security module. Its program is loaded before anyone
// looks, since a tracer asks at its start whether there is one that may refuse; it
// refuses nobody yet.
func lsmScenarios() []Scenario {
	list := slices.Concat(
		twins("denied-by-lsm", "a security module refuses connection requests",
			"A BPF LSM program refuses the requests for one port: 5 SYNs are dropped, 2 of them with tcp_syncookies=2; 2 to the next port are answered.",
			playDeniedByLSM),
		twins("denied-by-lsm-cookie-ack", "a security module refuses the ACKs of SYN cookies",
			"With tcp_syncookies=2, 5 SYNs are answered by cookies. 2 clients acknowledge and connect; then the LSM program begins to refuse, and 3 ACKs are dropped though their clients are connected by then.",
			playDeniedByLSMCookieAck),
	)
	for i := range list {
		list[i].Prepare = func(w *World) error {
			_, err := w.lsm()
			return err
		}
	}
	return list
}

// playDeniedByLSM also has SYNs refused that would have been answered by a cookie:
// tcp_conn_request counts those before it asks the security module (route_req).
func playDeniedByLSM(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const ordinary, cookies, open = 3, 2, port + 1
		var none Expectation
		lsm, err := w.lsm()
		if err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{
			{Addr: f.listener, Backlog: backlog}, {Addr: at(f.listener, open), Backlog: backlog},
		}})
		if err != nil {
			return none, err
		}
		if err := lsm.refuse(w.NetNS(), port); err != nil {
			return none, err
		}
		denied, err := w.Burst(ctx, f.server, ordinary)
		if err != nil {
			return none, err
		}
		answered, err := w.Burst(ctx, at(f.server, open), 2)
		if err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
			return none, err
		}
		more, err := w.Burst(ctx, f.server, cookies)
		if err != nil {
			return none, err
		}
		denied = append(denied, more...)
		if err := errors.Join(wantFate(event.ActionDropped, denied...), wantAnswers(answered, len(answered))); err != nil {
			return none, err
		}
		log("the security module refused %d SYNs, %d of them with tcp_syncookies=2; %d to the next port were answered", len(denied), cookies, len(answered))

		n := len(denied)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseDeniedByLSM, Stage: event.StageSyn, Action: event.ActionDropped, Count: n,
				Listener: f.listener, AcceptQueue: Queue{Len: 0, Limit: backlog}, Clients: addresses(denied), Attempts: first(n), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{
				event.CounterListenDrops:          uint64(n),
				event.CounterTCPReqQFullDoCookies: cookies,
			}),
			Syns: w.Syns(), Handshakes: n,
		}
		e.owners(server)
		return e, nil
	}
}

// playDeniedByLSMCookieAck refuses what a cookie has answered already. The cookie
// check asks the security module for every good cookie and frees the ACK
// without a word; no counter of drops moves.
func playDeniedByLSMCookieAck(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const total, early = 5, 2
		var none Expectation
		lsm, err := w.lsm()
		if err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
			return none, err
		}
		server, clients, err := w.halfOpen(ctx, f, total, total)
		if err != nil {
			return none, err
		}
		connected, denied := clients[:early], clients[early:]
		if err := w.each(ctx, connected, (*Client).ACK); err != nil {
			return none, err
		}
		if err := lsm.refuse(w.NetNS(), port); err != nil {
			return none, err
		}
		if err := w.each(ctx, denied, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(early, 0); err != nil {
			return none, err
		}
		if err := wantNoReset("refused ACKs", clients); err != nil {
			return none, err
		}
		log("%d SYN cookies were acknowledged in time; the security module refused the ACKs of %d others", early, len(denied))

		n := len(denied)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseDeniedByLSM, Stage: event.StageAck, Action: event.ActionDropped, Count: n,
				Listener: f.listener, AcceptQueue: Queue{Len: early, Limit: total}, Clients: addresses(denied), Attempts: first(n), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{
				event.CounterTCPReqQFullDoCookies: total, // for every cookie with tcp_syncookies=2
				event.CounterSyncookiesSent:       total,
				event.CounterSyncookiesRecv:       total, // before the module is asked
			}),
			Cookies: total, Syns: w.Syns(), Handshakes: n,
		}
		e.owners(server)
		return e, nil
	}
}
