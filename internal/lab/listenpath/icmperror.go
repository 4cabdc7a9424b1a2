// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// The router that complains about the server's SYN-ACKs; no client has its
// address.
var (
	router4 = netip.MustParseAddr("10.99.0.253")
	router6 = netip.MustParseAddr("fd99::fd")
)

// icmpError builds a router's ICMP error about a packet the server sent, with
// as much of that packet as IPv4 routers used to return: the header and eight
// bytes, the sequence number among them. IPv6 routers return all of it.
func icmpError(about world.Segment, kind, code byte) []byte {
	packet := about.Marshal()
	if about.Src.Addr().Is4() {
		icmp := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, packet[:28]...)
		binary.BigEndian.PutUint16(icmp[2:], ^world.Fold(world.Sum(0, icmp)))
		return append(world.Header4(router4, about.Src.Addr(), unix.IPPROTO_ICMP, nil,
			len(icmp)), icmp...)
	}
	icmp := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, packet...)
	pseudo := world.PseudoHeader(router6, about.Src.Addr(), unix.IPPROTO_ICMPV6, len(icmp))
	binary.BigEndian.PutUint16(icmp[2:], ^world.Fold(world.Sum(pseudo, icmp)))
	return append(world.Header6(router6, about.Src.Addr(), unix.IPPROTO_ICMPV6, len(icmp)),
		icmp...)
}

// playICMPError plays the errors that tcp_req_err takes for final: in IPv4,
// network and host unreachable, time exceeded and parameter problem
// (tcp_v4_err); in IPv6, what icmpv6_err_convert calls fatal. A port unreachable
// is soft in IPv4 and final in IPv6. An error about a packet that the server
// never sent (another sequence number) is not believed.
func playICMPError(f world.Family) scenario.PlayFunc {
	type icmp struct{ kind, code byte }
	final, soft := []icmp{{3, 1}, {3, 0}, {11, 0}, {12, 0}}, icmp{3, 3}
	if f.IPv6() {
		final, soft = []icmp{{1, 4}, {1, 1}, {4, 1}}, icmp{1, 3}
	}
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		const backlog = 16
		var none scenario.Expectation
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		server, err := scenario.IdleServer(w, f.Listener, backlog)
		if err != nil {
			return none, err
		}
		total := len(final) + 2
		clients, err := w.Burst(ctx, f.Server, total)
		if err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(clients, total); err != nil {
			return none, err
		}
		ended, survivors := clients[:len(final)], clients[len(final):]
		for i, c := range ended {
			if err := w.InjectFrame(icmpError(*c.SYNAck, final[i].kind,
				final[i].code)); err != nil {
				return none, err
			}
			if err := w.WantQueues(0, total-1-i); err != nil {
				return none, fmt.Errorf("ICMP type %d code %d: %w", final[i].kind,
					final[i].code, err)
			}
		}
		if err := w.InjectFrame(icmpError(*survivors[0].SYNAck, soft.kind,
			soft.code)); err != nil {
			return none, err
		}
		other := *survivors[1].SYNAck
		other.Seq++
		if err := w.InjectFrame(icmpError(other, final[0].kind,
			final[0].code)); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, len(survivors)); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, survivors, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(len(survivors), 0); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("ICMP errors", clients); err != nil {
			return none, err
		}
		log("ICMP errors ended %d half-open handshakes; %d clients connected in spite of one", len(ended), len(survivors))

		n := len(ended)
		e := scenario.Expectation{
			// The packet is the router's: which attempt of the client's it is, is not
			// defined.
			Records: []scenario.Expect{{
				Cause: event.CauseICMPError, Stage: event.StageAck,
				Action: event.ActionDropped, Count: n,
				Listener: f.Listener, Clients: scenario.Addresses(ended),
				PIDs: []int{server.PID},
			}},
			Counters: scenario.Counters(
				map[event.Counter]uint64{event.CounterListenDrops: uint64(n)}),
			Syns: w.Syns(),
		}
		e.Owners(server)
		return e, nil
	}
}
