// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// optionMD5 is the TCP option of RFC 2385.
const optionMD5 = 19

// badSignature is well-formed and right for no key.
func badSignature() []byte {
	return append([]byte{optionNOP, optionNOP, optionMD5, 18}, bytes.Repeat([]byte{0xa5}, 16)...)
}

// md5Key makes packets from addr need a signature by a key that nobody else
// knows. It is struct tcp_md5sig of linux/tcp.h.
func md5Key(addr netip.Addr) SocketOption {
	const key = "a key of the lab"
	b := make([]byte, 216)
	if addr.Is4() { // struct sockaddr_in: family, port, address
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		copy(b[4:], addr.AsSlice())
	} else { // struct sockaddr_in6: family, port, flow information, address
		binary.NativeEndian.PutUint16(b, unix.AF_INET6)
		copy(b[8:], addr.AsSlice())
	}
	// Behind the sockaddr_storage: flags, prefix length, key length, interface, key.
	binary.NativeEndian.PutUint16(b[130:], uint16(len(key)))
	copy(b[136:], key)
	return SocketOption{Level: unix.IPPROTO_TCP, Name: unix.TCP_MD5SIG, Value: b}
}

// holdsMD5 tries the option on a socket that is thrown away.
func (w *World) holdsMD5(addr netip.Addr) error {
	domain := unix.AF_INET
	if addr.Is6() {
		domain = unix.AF_INET6
	}
	return w.Do(func() error {
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		err = ListenConfig{Options: []SocketOption{md5Key(addr)}}.configure(fd)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return fmt.Errorf("%w: it needs CONFIG_TCP_MD5SIG: %w", ErrCannotHold, err)
		}
		return err
	})
}

// playAuthFailed plays the three failures of tcp_inbound_md5_hash (called
// directly, or through tcp_inbound_hash in newer kernels), which drop a packet
// before the listener looks at it: no counter of the closed list moves. The last
// client shows it for an ACK; its request survives.
func playAuthFailed(f family) playFunc {
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		var none Expectation
		if err := w.holdsMD5(f.server.Addr()); err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		unsigned, wrong, unexpected, late := w.clients(f.server, 2), w.clients(f.server, 1), w.clients(f.server, 2), w.clients(f.server, 1)
		var keys []SocketOption
		for _, c := range append(unsigned[:2:2], wrong...) {
			keys = append(keys, md5Key(c.Local.Addr()))
		}
		server, err := w.StartServer(ServerConfig{Listeners: []ListenConfig{{Addr: f.listener, Backlog: backlog, Options: keys}}})
		if err != nil {
			return none, err
		}
		before, err := w.stats()
		if err != nil {
			return none, err
		}
		if err := w.each(ctx, unsigned, (*Client).SYN); err != nil {
			return none, err
		}
		signed := append(wrong[:1:1], unexpected...)
		err = w.each(ctx, signed, func(c *Client) error {
			syn := c.syn()
			syn.options = append(syn.options, badSignature()...)
			return c.sendSYN(c.frame(syn))
		})
		if err != nil {
			return none, err
		}
		lostSyns := append(unsigned[:2:2], signed...)
		if err := wantAnswers(lostSyns, 0); err != nil {
			return none, err
		}
		if err := w.each(ctx, late, (*Client).SYN); err != nil {
			return none, err
		}
		if err := wantAnswers(late, 1); err != nil {
			return none, err
		}
		if err := w.spoiled(ctx, late, func(_ *Client, ack *segment) { ack.options = badSignature() }); err != nil {
			return none, err
		}
		if err := w.wantQueues(0, 1); err != nil {
			return none, err
		}
		if err := w.each(ctx, late, (*Client).ACK); err != nil {
			return none, err
		}
		if err := w.wantQueues(1, 0); err != nil {
			return none, err
		}
		if err := wantNoReset("failed signatures", append(lostSyns[:5:5], late...)); err != nil {
			return none, err
		}
		if err := w.wantMoved(before, stats{"TCPMD5NotFound": 2, "TCPMD5Failure": 1, "TCPMD5Unexpected": 3}); err != nil {
			return none, err
		}
		log("%d SYNs and an ACK were dropped: 2 without a signature, 1 with a wrong one, 3 with one that nobody asked for", len(lostSyns))

		n := len(lostSyns)
		e := Expectation{
			Records: []Expect{
				{
					Cause: event.CauseAuthFailed, Stage: event.StageSyn, Action: event.ActionDropped, Count: n,
					Listener: f.listener, Clients: addresses(lostSyns), Attempts: first(n), PIDs: []int{server.PID},
				},
				{
					Cause: event.CauseAuthFailed, Stage: event.StageAck, Action: event.ActionDropped, Count: 1,
					Listener: f.listener, Clients: addresses(late), Attempts: first(1), PIDs: []int{server.PID},
				},
			},
			Counters: counters(nil), Syns: w.Syns(), Handshakes: n + 1,
		}
		e.owners(server)
		return e, nil
	}
}
