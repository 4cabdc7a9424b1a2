// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// playTimeWait follows tcp_timewait_state_process: a SYN is taken when its
// sequence number is beyond what the old connection had, or when its timestamp
// is newer. Any other one, and any with an older timestamp (PAWS), is refused
// with an ACK of the old connection, but not more often than
// tcp_invalid_ratelimit says.
func playTimeWait(f family) playFunc {
	bound, server := f.listener, f.server
	const older, newer = ^uint32(0) - 5000 + 1, 100000
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		var none Expectation
		// One minute: the second refused SYN is within it on any machine.
		if err := w.sysctls("net.ipv4.tcp_timestamps", "1", "net.ipv4.tcp_invalid_ratelimit", "60000"); err != nil {
			return none, err
		}
		_, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{{Addr: bound, Backlog: 64, HangUp: true}}})
		if err != nil {
			return none, err
		}
		plain, err := w.timeWait(ctx, server, false)
		if err != nil {
			return none, err
		}
		stamped, err := w.timeWait(ctx, server, true)
		if err != nil {
			return none, err
		}
		before, err := w.stats()
		if err != nil {
			return none, err
		}

		sequence := w.ClientFrom(plain.Local, server, plain.ISN+older)
		timestamp := w.ClientFrom(stamped.Local, server, stamped.ISN+newer)
		timestamp.Timestamps, timestamp.TimestampOffset = true, older-newer
		refused := []*Client{sequence, sequence, timestamp}
		for _, c := range refused {
			if err := c.SYN(); err != nil {
				return none, err
			}
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if err := wantFate(event.ActionDropped, refused...); err != nil {
			return none, err
		}
		for _, c := range []*Client{sequence, timestamp} {
			// Where softirqs are threads the answer may come after the barrier's.
			for tries := 0; len(c.others) == 0 && tries < 50; tries++ {
				time.Sleep(20 * time.Millisecond)
				if err := w.Barrier(ctx); err != nil {
					return none, err
				}
			}
			if len(c.others) != 1 || c.others[0].flags != flagACK {
				return none, fmt.Errorf("TIME_WAIT answered client %s with %d packets, expected one ACK", c.Local, len(c.others))
			}
		}
		if err := w.wantMoved(before, stats{"TCPACKSkippedTimeWait": 1}); err != nil {
			return none, err
		}

		taken := []*Client{
			w.ClientFrom(plain.Local, server, plain.ISN+newer),
			w.ClientFrom(stamped.Local, server, stamped.ISN+older),
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
		return ingress(event.CauseTimeWait, event.ActionDropped, refused...), nil
	}
}

// timeWait plays a connection that the server closes first, so that the server
// keeps it in TIME_WAIT.
func (w *World) timeWait(ctx context.Context, server netip.AddrPort, timestamps bool) (*Client, error) {
	c := w.Client(server)
	c.Timestamps = timestamps
	if err := c.Handshake(ctx); err != nil {
		return nil, err
	}
	var fin segment
	if err := c.wait(ctx, "FIN", func() bool {
		for _, s := range c.others {
			if s.flags&flagFIN != 0 {
				fin = s
				return true
			}
		}
		return false
	}); err != nil {
		return nil, err
	}
	// ACK of the FIN and FIN of this side in one: FIN_WAIT1 to TIME_WAIT.
	last, err := c.next(flagFIN|flagACK, nil)
	if err != nil {
		return nil, err
	}
	last.ack = fin.seq + 1
	if err := c.send(last); err != nil {
		return nil, err
	}
	return c, w.Barrier(ctx)
}
