// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"fmt"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// playTimeWait follows tcp_timewait_state_process: a SYN is taken when its
// sequence number is beyond what the old connection had, or when its timestamp
// is newer. Any other one, and any with an older timestamp (PAWS), is refused
// with an ACK of the old connection, but not more often than
// tcp_invalid_ratelimit says.
func playTimeWait(f world.Family) scenario.PlayFunc {
	bound, s := f.Listener, f.Server
	const older, newer = ^uint32(0) - 5000 + 1, 100000
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		// One minute: the second refused SYN is within it on any machine.
		if err := w.Sysctls("net.ipv4.tcp_timestamps", "1",
			"net.ipv4.tcp_invalid_ratelimit", "60000"); err != nil {
			return none, err
		}
		_, err := server.Start(w,
			server.Config{Listeners: []server.ListenConfig{{Addr: bound, Backlog: 64,
				HangUp: true}}})
		if err != nil {
			return none, err
		}
		plain, err := w.TimeWait(ctx, s, false)
		if err != nil {
			return none, err
		}
		stamped, err := w.TimeWait(ctx, s, true)
		if err != nil {
			return none, err
		}
		before, err := w.Stats()
		if err != nil {
			return none, err
		}

		sequence := w.ClientFrom(plain.Local, s, plain.ISN+older)
		timestamp := w.ClientFrom(stamped.Local, s, stamped.ISN+newer)
		timestamp.Timestamps, timestamp.TimestampOffset = true, older-newer
		refused := []*world.Client{sequence, sequence, timestamp}
		for _, c := range refused {
			if err := c.SYN(); err != nil {
				return none, err
			}
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if err := scenario.WantAction(event.ActionDropped, refused...); err != nil {
			return none, err
		}
		for _, c := range []*world.Client{sequence, timestamp} {
			// Where softirqs are threads the answer may come after the barrier's.
			for tries := 0; len(c.Others) == 0 && tries < 50; tries++ {
				time.Sleep(20 * time.Millisecond)
				if err := w.Barrier(ctx); err != nil {
					return none, err
				}
			}
			if len(c.Others) != 1 || c.Others[0].Flags != world.FlagACK {
				return none, fmt.Errorf("TIME_WAIT answered client %s with %d packets, expected one ACK", c.Local, len(c.Others))
			}
		}
		if err := w.WantMoved(before, world.Stats{"TCPACKSkippedTimeWait": 1}); err != nil {
			return none, err
		}

		taken := []*world.Client{
			w.ClientFrom(plain.Local, s, plain.ISN+newer),
			w.ClientFrom(stamped.Local, s, stamped.ISN+older),
		}
		taken[1].Timestamps, taken[1].TimestampOffset = true, newer
		for _, c := range taken {
			if err := c.Handshake(ctx); err != nil {
				return none, fmt.Errorf("a SYN that TIME_WAIT takes: %w", err)
			}
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		log("TIME_WAIT refused %d SYNs with an older sequence number or timestamp, one of them quietly, and took %d newer ones", len(refused), len(taken))
		return scenario.Ingress(event.CauseTimeWait, event.ActionDropped, refused...), nil
	}
}
