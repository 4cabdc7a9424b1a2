// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// optionMD5 is the TCP option of RFC 2385.
const optionMD5 = 19

// badSignature is well-formed and right for no key.
func badSignature() []byte {
	return append([]byte{world.OptionNOP, world.OptionNOP, optionMD5, 18},
		bytes.Repeat([]byte{0xa5}, 16)...)
}

// md5Key makes packets from addr need a signature by a key that nobody else
// knows. It is struct tcp_md5sig of linux/tcp.h.
func md5Key(addr netip.Addr) server.SocketOption {
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
	return server.SocketOption{Level: unix.IPPROTO_TCP, Name: unix.TCP_MD5SIG, Value: b}
}

// holdsMD5 tries the option on a socket that is thrown away.
func holdsMD5(w *world.World, addr netip.Addr) error {
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
		err = server.ListenConfig{Options: []server.SocketOption{md5Key(addr)}}.Configure(
			fd)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return fmt.Errorf("%w: it needs CONFIG_TCP_MD5SIG: %w", world.ErrCannotHold,
				err)
		}
		return err
	})
}

// playAuthFailed plays the three failures of tcp_inbound_md5_hash (called
// directly, or through tcp_inbound_hash in newer kernels), which drop a packet
// before the listener looks at it: no counter of the closed list moves. The last
// client shows it for an ACK; its request survives.
func playAuthFailed(f world.Family) scenario.PlayFunc {
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		if err := holdsMD5(w, f.Server.Addr()); err != nil {
			return none, err
		}
		if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
			return none, err
		}
		unsigned, wrong, unexpected, late := w.Clients(f.Server, 2), w.Clients(f.Server,
			1), w.Clients(f.Server, 2), w.Clients(f.Server, 1)
		var keys []server.SocketOption
		for _, c := range append(unsigned[:2:2], wrong...) {
			keys = append(keys, md5Key(c.Local.Addr()))
		}
		server, err := server.Start(w,
			server.Config{Listeners: []server.ListenConfig{{Addr: f.Listener,
				Backlog: world.Backlog, Options: keys}}})
		if err != nil {
			return none, err
		}
		before, err := w.Stats()
		if err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, unsigned, (*world.Client).SYN); err != nil {
			return none, err
		}
		signed := append(wrong[:1:1], unexpected...)
		err = scenario.Each(ctx, w, signed, func(c *world.Client) error {
			syn := c.SYNSegment()
			syn.Options = append(syn.Options, badSignature()...)
			return c.SendSYN(c.Frame(syn))
		})
		if err != nil {
			return none, err
		}
		lostSyns := append(unsigned[:2:2], signed...)
		if err := scenario.WantAnswers(lostSyns, 0); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, late, (*world.Client).SYN); err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(late, 1); err != nil {
			return none, err
		}
		if err := spoiled(ctx, w, late,
			func(_ *world.Client,
				ack *world.Segment) {
				ack.Options = badSignature()
			}); err != nil {
			return none, err
		}
		if err := w.WantQueues(0, 1); err != nil {
			return none, err
		}
		if err := scenario.Each(ctx, w, late, (*world.Client).ACK); err != nil {
			return none, err
		}
		if err := w.WantQueues(1, 0); err != nil {
			return none, err
		}
		if err := scenario.WantNoReset("failed signatures",
			append(lostSyns[:5:5], late...)); err != nil {
			return none, err
		}
		if err := w.WantMoved(before, world.Stats{"TCPMD5NotFound": 2, "TCPMD5Failure": 1,
			"TCPMD5Unexpected": 3}); err != nil {
			return none, err
		}
		log("%d SYNs and an ACK were dropped: 2 without a signature, 1 with a wrong one, 3 with one that nobody asked for", len(lostSyns))

		n := len(lostSyns)
		e := scenario.Expectation{
			Records: []scenario.Expect{
				{
					Cause: event.CauseAuthFailed, Stage: event.StageSyn,
					Action: event.ActionDropped, Count: n,
					Listener: f.Listener, Clients: scenario.Addresses(lostSyns),
					Attempts: scenario.First(n),
					PIDs:     []int{server.PID},
				},
				{
					Cause: event.CauseAuthFailed, Stage: event.StageAck,
					Action: event.ActionDropped, Count: 1,
					Listener: f.Listener, Clients: scenario.Addresses(late),
					Attempts: scenario.First(1),
					PIDs:     []int{server.PID},
				},
			},
			Counters: scenario.Counters(nil), Syns: w.Syns(), Handshakes: n + 1,
		}
		e.Owners(server)
		return e, nil
	}
}
