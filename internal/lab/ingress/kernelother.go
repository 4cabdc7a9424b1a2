// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
)

// oddity is a SYN that dies on a branch of its own.
type oddity struct {
	what     string
	from, to netip.Addr // the default is an ordinary client, and the server
	spoil    func(frame []byte) []byte
	moves    string // the counter that says which branch, where there is one
	refused  bool   // the kernel answers by an ICMP error
}

func playKernelOther(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	// Inherited from the host, which may be a router.
	if err := w.Sysctls("net.ipv4.ip_forward", "0",
		"net.ipv4.conf."+world.TUNName+".route_localnet", "0",
		"net.ipv4.conf."+world.TUNName+".accept_local", "0",
		"net.ipv4.conf.all.accept_local", "0",
		"net.ipv4.conf.all.route_localnet", "0", "net.ipv4.conf."+world.TUNName+".accept_source_route", "0"); err != nil {
		return scenario.Expectation{}, err
	}
	option := func(options ...byte) func([]byte) []byte {
		return func(frame []byte) []byte {
			h := world.Header4(netip.AddrFrom4([4]byte(frame[12:])),
				netip.AddrFrom4([4]byte(frame[16:])), unix.IPPROTO_TCP, options, len(frame)-20)
			return append(h, frame[20:]...)
		}
	}
	return oddities(ctx, w, world.Family4, log, []oddity{
		{what: "to an address that is not local",
			to: netip.AddrFrom4([4]byte{10, 99, 0, 250}), moves: "IpInAddrErrors"},
		{what: "to an address without a route", to: netip.AddrFrom4([4]byte{10, 98, 0, 1})},
		{what: "from 127.0.0.1", from: world.Loopback4.Addr()},
		{what: "from a multicast address", from: netip.AddrFrom4([4]byte{224, 0, 0, 9})},
		{what: "from the server's own address", from: world.ServerAddr4},
		{what: "with a broken IP option", spoil: option(7, 2, 4, 0),
			moves: "IpInHdrErrors"}, // record route, too short
		{what: "with a source route", spoil: option(131, 7, 4, 10, 99, 0, 1, 0)},
		{what: "with a TCP header of 16 bytes", spoil: tcpHeaderWords(20, 4),
			moves: "TcpInErrs"},
		{what: "with a TCP header longer than the packet", spoil: tcpHeaderWords(20, 15)},
		{what: "cut off", moves: "IpExtInTruncatedPkts", spoil: func(frame []byte) []byte {
			binary.BigEndian.PutUint16(frame[2:], uint16(len(frame)+100))
			frame[10], frame[11] = 0, 0
			binary.BigEndian.PutUint16(frame[10:],
				^world.Fold(world.Sum(0, frame[:20])))
			return frame
		}},
	})
}

func playKernelOtherIPv6(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	if err := w.Sysctls("net.ipv6.conf.all.forwarding", "0",
		"net.ipv6.conf."+world.TUNName+".forwarding", "0"); err != nil {
		return scenario.Expectation{}, err
	}
	return oddities(ctx, w, world.Family6, log, []oddity{
		{what: "to an address that is not local", to: netip.MustParseAddr("fd99::fa")},
		{what: "to an address without a route", to: netip.MustParseAddr("fd98::1"),
			moves: "Ip6InNoRoutes", refused: true},
		{what: "from ::1", from: world.Loopback6.Addr(), moves: "Ip6InHdrErrors"},
		{what: "from a multicast address", from: netip.MustParseAddr("ff02::9"),
			moves: "Ip6InHdrErrors"},
		{what: "with an unknown destination option", spoil: func(frame []byte) []byte {
			// Type 0x41: who does not know it drops the packet and says nothing.
			options := []byte{unix.IPPROTO_TCP, 0, 0x41, 4, 0, 0, 0, 0}
			spoiled := append(frame[:40:40], append(options, frame[40:]...)...)
			spoiled[6] = unix.IPPROTO_DSTOPTS
			binary.BigEndian.PutUint16(spoiled[4:], uint16(len(spoiled)-40))
			return spoiled
		}},
		{what: "with a TCP header of 16 bytes", spoil: tcpHeaderWords(40, 4),
			moves: "TcpInErrs"},
		{what: "with a TCP header longer than the packet", spoil: tcpHeaderWords(40, 15)},
		{what: "cut off", moves: "Ip6InTruncatedPkts", spoil: func(frame []byte) []byte {
			binary.BigEndian.PutUint16(frame[4:], uint16(len(frame)+100))
			return frame
		}},
	})
}

// tcpHeaderWords sets the TCP header's length and no more: it is looked at
// before the checksum (tcp_v4_rcv).
func tcpHeaderWords(header int, words byte) func([]byte) []byte {
	return func(frame []byte) []byte {
		frame[header+12] = words << 4
		return frame
	}
}

// oddities sends each of the SYNs to a healthy listener, and one without any
// oddity, which is answered.
func oddities(ctx context.Context, w *world.World, f world.Family, log func(string, ...any),
	list []oddity) (scenario.Expectation, error) {
	var none scenario.Expectation
	if _, err := scenario.IdleServer(w, f.Listener, world.Backlog); err != nil {
		return none, err
	}
	var dead, refused []*world.Client
	for i, o := range list {
		c := w.Client(f.Server)
		if o.from.IsValid() || o.to.IsValid() {
			local, remote := c.Local, c.Remote
			if o.from.IsValid() {
				local = netip.AddrPortFrom(o.from, local.Port()+uint16(i))
			}
			if o.to.IsValid() {
				remote = netip.AddrPortFrom(o.to, remote.Port())
			}
			c = w.ClientFrom(local, remote, c.ISN)
		}
		frame := c.Frame(c.SYNSegment())
		if o.spoil != nil {
			frame = o.spoil(frame)
		}
		before, err := w.Stats()
		if err != nil {
			return none, err
		}
		if err := c.SendSYN(frame); err != nil {
			return none, err
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if err := scenario.WantAction(event.ActionDropped, c); err != nil {
			return none, err
		}
		moved := world.Stats{"TcpPassiveOpens": 0, "TcpInCsumErrors": 0,
			"IpExtInCsumErrors": 0}
		if o.moves != "" {
			moved[o.moves] = 1
		}
		if err := w.WantMoved(before, moved); err != nil {
			return none, err
		}
		if o.refused {
			log("SYN %s: no answer by TCP", o.what)
			refused = append(refused, c)
			continue
		}
		log("SYN %s: no answer", o.what)
		dead = append(dead, c)
	}
	if err := w.Client(f.Server).Handshake(ctx); err != nil {
		return none, err
	}
	if err := w.Barrier(ctx); err != nil {
		return none, err
	}
	e := scenario.Ingress(event.CauseKernelOther, event.ActionDropped, dead...)
	if len(refused) > 0 {
		records, handshakes := scenario.Group(event.CauseKernelOther, event.StageIngress,
			event.ActionReset, refused)
		e.Records, e.Handshakes = append(e.Records, records), e.Handshakes+handshakes
	}
	return e, nil
}
