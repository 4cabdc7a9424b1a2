// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"errors"
	"slices"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// LSM are those of a security module. Its program is loaded before anyone
// looks, since a tracer asks at its start whether there is one that may refuse; it
// refuses nobody yet.
func LSM() []scenario.Scenario {
	list := slices.Concat(
		scenario.Twins("denied-by-lsm", "a security module refuses connection requests",
			"A BPF LSM program refuses the requests for one port: 5 SYNs are dropped, 2 of them with tcp_syncookies=2; 2 to the next port are answered.",
			playDeniedByLSM),
		scenario.Twins("denied-by-lsm-cookie-ack",
			"a security module refuses the ACKs of SYN cookies",
			"With tcp_syncookies=2, 5 SYNs are answered by cookies. 2 clients acknowledge and connect; then the LSM program begins to refuse, and 3 ACKs are dropped though their clients are connected by then.",
			playDeniedByLSMCookieAck),
	)
	for i := range list {
		list[i].Prepare = func(w *world.World) error {
			_, err := w.LSM()
			return err
		}
	}
	return list
}

// playDeniedByLSM also has SYNs refused that would have been answered by a cookie:
// tcp_conn_request counts those before it asks the security module (route_req).
func playDeniedByLSM(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const ordinary, cookies, open = 3, 2, world.Port + 1
		var none scenario.Expectation
		lsm, err := w.LSM()
		if err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{
			{Addr: f.Listener, Backlog: world.Backlog}, {Addr: world.At(f.Listener,
				open), Backlog: world.Backlog},
		}})
		if err != nil {
			return none, err
		}
		if err := lsm.Refuse(w.NetNS(), world.Port); err != nil {
			return none, err
		}
		denied, err := w.Burst(ctx, f.Server, ordinary)
		if err != nil {
			return none, err
		}
		answered, err := w.Burst(ctx, world.At(f.Server, open), 2)
		if err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
			return none, err
		}
		more, err := w.Burst(ctx, f.Server, cookies)
		if err != nil {
			return none, err
		}
		denied = append(denied, more...)
		if err := errors.Join(scenario.WantAction(event.ActionDropped, denied...),
			scenario.WantAnswers(answered, len(answered))); err != nil {
			return none, err
		}
		log("the security module refused %d SYNs, %d of them with tcp_syncookies=2; %d to the next port were answered", len(denied), cookies, len(answered))

		n := len(denied)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseDeniedByLSM, Stage: event.StageSyn,
				Action: event.ActionDropped, Count: n,
				Listener: f.Listener, AcceptQueue: scenario.Queue{Len: 0,
					Limit: world.Backlog}, Clients: scenario.Addresses(denied), Attempts: scenario.First(n), PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterListenDrops:          uint64(n),
				event.CounterTCPReqQFullDoCookies: cookies,
			}),
			Syns: w.Syns(), Handshakes: n,
		}
		e.Owners(server)
		return e, nil
	}
}

// playDeniedByLSMCookieAck refuses what a cookie has answered already. The cookie
// check asks the security module for every good cookie and frees the ACK
// without a word; no counter of drops moves.
func playDeniedByLSMCookieAck(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const total, early = 5, 2
		var none scenario.Expectation
		lsm, err := w.LSM()
		if err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
			return none, err
		}
		server, clients, err := scenario.HalfOpen(ctx, w, f, total, total)
		if err != nil {
			return none, err
		}
		connected, denied := clients[:early], clients[early:]
		if err := scenario.Each(ctx, w, connected, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := lsm.Refuse(w.NetNS(), world.Port); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, denied, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(early, 0); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("refused ACKs", clients); err != nil {
			return none, err
		}
		log("%d SYN cookies were acknowledged in time; the security module refused the ACKs of %d others", early, len(denied))

		n := len(denied)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseDeniedByLSM, Stage: event.StageAck,
				Action: event.ActionDropped, Count: n,
				Listener: f.Listener, AcceptQueue: scenario.Queue{Len: early,
					Limit: total}, Clients: scenario.Addresses(denied), Attempts: scenario.First(n), PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterTCPReqQFullDoCookies: total, // for every cookie with tcp_syncookies=2
				event.CounterSyncookiesSent:       total,
				event.CounterSyncookiesRecv:       total, // before the module is asked
			}),
			Cookies: total, Syns: w.Syns(), Handshakes: n,
		}
		e.Owners(server)
		return e, nil
	}
}
