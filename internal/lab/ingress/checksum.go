// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// playChecksum damages checksums. The TUN device has no offloads, so the kernel
// checks every packet (CHECKSUM_NONE). Short ones it checks on arrival
// (tcp_v4_rcv); one with more than 76 bytes of TCP only when the socket takes it
// (CHECKSUM_BREAK, tcp_v4_do_rcv), so that the listener is known by then.
func playChecksum(f world.Family) scenario.PlayFunc {
	bound, server := f.Listener, f.Server
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		if _, err := scenario.IdleServer(w, bound, world.Backlog); err != nil {
			return none, err
		}
		before, err := w.Stats()
		if err != nil {
			return none, err
		}
		header := 20
		if server.Addr().Is6() {
			header = 40
		}
		c, long := w.Client(server), w.Client(server)
		frames := [][]byte{c.Frame(c.SYNSegment()), nil}
		frames[0][header+16] ^= 0x55
		withData := long.SYNSegment()
		withData.Payload = make([]byte, 100)
		frames[1] = long.Frame(withData)
		frames[1][header+16] ^= 0x55
		dead := []*world.Client{c, long}
		moved := world.Stats{"TcpInCsumErrors": 2}
		if server.Addr().Is4() {
			damaged := c.Frame(c.SYNSegment())
			damaged[10] ^= 0x55
			frames, dead = append(frames, damaged), append(dead, c)
			moved["IpExtInCsumErrors"] = 1
		}
		for i, frame := range frames {
			if err := dead[i].SendSYN(frame); err != nil {
				return none, err
			}
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if err := scenario.WantAction(event.ActionDropped, dead...); err != nil {
			return none, err
		}
		if err := w.WantMoved(before, moved); err != nil {
			return none, err
		}
		if err := c.Handshake(ctx); err != nil {
			return none, err
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		log("%d SYNs with a damaged checksum got no answer; undamaged, client %s connected",
			len(dead), c.Local)
		return scenario.Ingress(event.CauseChecksum, event.ActionDropped, dead...), nil
	}
}
