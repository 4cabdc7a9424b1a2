// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"

	"github.com/synspy/synspy/internal/event"
)

// notTheCookie is added to a good acknowledgement. It changes the bits that hold
// the hash and leaves those of the count, so that no luck makes another cookie
// of it: __cookie_v4_check wants the rest to be an index below 4.
const notTheCookie = 1 << 20

// playCookieInvalid sends cookies first: a listener that has sent none lately
// does not look at cookies at all (tcp_synq_no_recent_overflow), and its RST
// would be bad_handshake_ack's.
func playCookieInvalid(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		const wrong, strangers = 3, 2
		var none Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
			return none, err
		}
		server, clients, err := w.halfOpen(ctx, f, backlog, wrong)
		if err != nil {
			return none, err
		}
		err = w.each(ctx, clients, func(c *Client) error {
			ack, err := c.next(flagACK, nil)
			if err != nil {
				return err
			}
			ack.ack += notTheCookie
			return c.send(ack)
		})
		if err != nil {
			return none, err
		}
		forgers := w.clients(f.server, strangers)
		err = w.each(ctx, forgers, func(c *Client) error {
			return c.send(segment{seq: c.ISN + 1, ack: 0x7a5a5a5a, flags: flagACK})
		})
		if err != nil {
			return none, err
		}
		refused := append(clients[:wrong:wrong], forgers...)
		if err := wantReset("ACKs without a valid cookie", refused); err != nil {
			return none, err
		}
		if err := w.wantQueues(0, 0); err != nil {
			return none, err
		}
		// The cookies themselves are as good as ever.
		if err := w.each(ctx, clients, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(wrong, 0); err != nil {
			return none, err
		}
		log("%d wrong and %d forged acknowledgements were reset; %d good ones connected", wrong, strangers, wrong)

		n := len(refused)
		e := Expectation{
			Records: []Expect{{
				Cause: event.CauseCookieInvalid, Stage: event.StageAck, Action: event.ActionReset, Count: n,
				Listener: f.listener, Clients: addresses(refused), Attempts: first(n), PIDs: []int{server.PID},
			}},
			Counters: counters(map[event.Counter]uint64{
				event.CounterTCPReqQFullDoCookies: wrong, // for every cookie with tcp_syncookies=2
				event.CounterSyncookiesSent:       wrong,
				event.CounterSyncookiesRecv:       wrong,
				event.CounterSyncookiesFailed:     uint64(n),
			}),
			Cookies: wrong, Syns: w.Syns(), Handshakes: n,
		}
		e.owners(server)
		return e, nil
	}
}
