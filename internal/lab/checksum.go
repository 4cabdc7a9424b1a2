// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"

	"github.com/synspy/synspy/internal/event"
)

// playChecksum damages checksums. The TUN device has no offloads, so the kernel
// checks every packet (CHECKSUM_NONE). Short ones it checks on arrival
// (tcp_v4_rcv); one with more than 76 bytes of TCP only when the socket takes it
// (CHECKSUM_BREAK, tcp_v4_do_rcv), so that the listener is known by then.
func playChecksum(f family) playFunc {
	bound, server := f.listener, f.server
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		var none Expectation
		if _, err := w.idleServer(bound, backlog); err != nil {
			return none, err
		}
		before, err := w.stats()
		if err != nil {
			return none, err
		}
		header := 20
		if server.Addr().Is6() {
			header = 40
		}
		c, long := w.Client(server), w.Client(server)
		frames := [][]byte{c.frame(c.syn()), nil}
		frames[0][header+16] ^= 0x55
		withData := long.syn()
		withData.payload = make([]byte, 100)
		frames[1] = long.frame(withData)
		frames[1][header+16] ^= 0x55
		dead := []*Client{c, long}
		moved := stats{"TcpInCsumErrors": 2}
		if server.Addr().Is4() {
			damaged := c.frame(c.syn())
			damaged[10] ^= 0x55
			frames, dead = append(frames, damaged), append(dead, c)
			moved["IpExtInCsumErrors"] = 1
		}
		for i, frame := range frames {
			if err := dead[i].sendSYN(frame); err != nil {
				return none, err
			}
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if err := wantFate(event.ActionDropped, dead...); err != nil {
			return none, err
		}
		if err := w.wantMoved(before, moved); err != nil {
			return none, err
		}
		if err := c.Handshake(ctx); err != nil {
			return none, err
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		log("%d SYNs with a damaged checksum got no answer; undamaged, client %s connected", len(dead), c.Local)
		return ingress(event.CauseChecksum, event.ActionDropped, dead...), nil
	}
}
