// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// notTheCookie is added to a good acknowledgement. It changes the bits that hold
// the hash and leaves those of the count, so that no luck makes another cookie
// of it: __cookie_v4_check wants the rest to be an index below 4.
const notTheCookie = 1 << 20

// playCookieInvalid sends cookies first: a listener that has sent none lately
// does not look at cookies at all (tcp_synq_no_recent_overflow), and its RST
// would be bad_handshake_ack's.
func playCookieInvalid(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const wrong, strangers = 3, 2
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
			return none, err
		}
		server, clients, err := scenario.HalfOpen(ctx, w, f, world.Backlog, wrong)
		if err != nil {
			return none, err
		}
		err = scenario.Each(ctx, w, clients, func(c *world.Client) error {
			ack, err := c.Next(world.FlagACK, nil)
			if err != nil {
				return err
			}
			ack.ACK += notTheCookie
			return c.Send(ack)
		})
		if err != nil {
			return none, err
		}
		forgers := w.Clients(f.Server, strangers)
		err = scenario.Each(ctx, w, forgers, func(c *world.Client) error {
			return c.Send(world.Segment{Seq: c.ISN + 1, ACK: 0x7a5a5a5a,
				Flags: world.FlagACK})
		})
		if err != nil {
			return none, err
		}
		refused := append(clients[:wrong:wrong], forgers...)
		if err := scenario.WantReset("ACKs without a valid cookie", refused); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, 0); err != nil {
			return none, err
		}
		// The cookies themselves are as good as ever.
		if err := scenario.Each(ctx, w, clients, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(wrong, 0); err != nil {
			return none, err
		}
		log("%d wrong and %d forged acknowledgements were reset; %d good ones connected",
			wrong, strangers, wrong)

		n := len(refused)
		e := scenario.Expectation{
			Records: []scenario.Expect{{
				Cause: event.CauseCookieInvalid, Stage: event.StageAck,
				Action: event.ActionReset, Count: n,
				Listener: f.Listener, Clients: scenario.Addresses(refused),
				Attempts: scenario.First(n), PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(map[event.Counter]uint64{
				event.CounterTCPReqQFullDoCookies: wrong, // for every cookie with tcp_syncookies=2
				event.CounterSyncookiesSent:       wrong,
				event.CounterSyncookiesRecv:       wrong,
				event.CounterSyncookiesFailed:     uint64(n),
			}),
			Cookies: wrong, Syns: w.Syns(), Handshakes: n,
		}
		e.Owners(server)
		return e, nil
	}
}
