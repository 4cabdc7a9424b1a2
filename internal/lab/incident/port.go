// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// portIncidents are those in which the port that clients use is not that of the listener.
func portIncidents() []Incident {
	const every = 50 * time.Millisecond
	proxy, proxy6 := world.At(world.Any4, world.Port+7), world.At(world.Any6, world.Port+7)
	steered := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), world.Port+9)
	idle := func(w *world.World, l server.ListenConfig, log func(string, ...any)) error {
		s, err := serve(w, "lab-proxy", l)
		if err == nil {
			log("process %d only listens, on %s", s.PID, l.Addr)
		}
		return err
	}
	tproxied := func(ctx context.Context, w *world.World, log func(string, ...any)) (traffic,
		error) {
		if err := divert(w, world.Server4,
			diversion{to: proxy.Port(), transparent: true}); err != nil {
			return nil, err
		}
		return steady(w, world.Server4, every, 1), idle(w,
			server.ListenConfig{Addr: proxy, Backlog: 8,
				Options: []server.SocketOption{server.IntOption(unix.SOL_IP,
					unix.IP_TRANSPARENT, 1)}}, log)
	}
	redirected := func(_ context.Context, w *world.World, log func(string, ...any)) (traffic,
		error) {
		if err := divert(w, world.Server6, diversion{to: proxy6.Port()}); err != nil {
			return nil, err
		}
		return steady(w, world.Server6, every, 1), idle(w,
			server.ListenConfig{Addr: proxy6, Backlog: 8}, log)
	}
	return []Incident{
		{
			Name:    "diagnose-redirect",
			Title:   "a port is redirected to a server that does not accept",
			Finding: "no_acceptor",
			Explain: "A rule redirects the SYNs of 20 IPv6 clients a second to another port, whose listener never calls accept(); the port of the clients is asked about.",
			Ports:   []uint16{world.Server6.Port()}, Place: proxy6,
			Names: []string{"connection tracking", "redirect rule"},
			Begin: redirected,
		},
		{
			Name: "diagnose-other-port", Title: "another port is the one in trouble",
			Finding: "no_syn_arrived", Unproven: true,
			Names:   []string{":8087 of lab-proxy"},
			Explain: "A listener never calls accept() while 20 clients a second come to it; another port is asked about, to which nobody comes.",
			Ports:   []uint16{world.Server6.Port() + 1}, Begin: redirected,
		},
		{
			Name:    "diagnose-sk-lookup",
			Title:   "a program gives SYNs to a server that does not accept",
			Finding: "no_acceptor",
			Explain: "An sk_lookup program gives the SYNs of 20 clients a second to a listener on 127.0.0.1 and another port, which never calls accept(); the port of the clients is asked about.",
			Ports:   []uint16{world.Server4.Port()}, Place: steered,
			Names: []string{"bpf_sk_assign"},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-steered",
					server.ListenConfig{Addr: steered, Backlog: 8})
				if err != nil {
					return nil, err
				}
				log("process %d only listens, on %s", s.PID, steered)
				return steady(w, world.Server4, every, 1), server.Steer(w,
					world.Server4.Port(), s)
			},
		},
		{
			Name:    "diagnose-sk-lookup-idle",
			Title:   "a program may give SYNs to other ports",
			Finding: "no_syn_arrived", Unproven: true,
			Names:   []string{"lab_steer"},
			Explain: "An sk_lookup program gives the SYNs of 20 clients a second to a listener on another port that accepts at once; the port of the clients is asked about.",
			Ports:   []uint16{world.Server4.Port()},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				s, err := serve(w, "lab-steered",
					server.ListenConfig{Addr: steered, Backlog: 128,
						Accept: true})
				if err != nil {
					return nil, err
				}
				log("process %d accepts at once, on %s", s.PID, steered)
				return steady(w, world.Server4, every, 1), server.Steer(w,
					world.Server4.Port(), s)
			},
		},
		{
			Name:    "diagnose-tproxy",
			Title:   "a proxy that gets other ports' SYNs does not accept",
			Finding: "no_acceptor",
			Explain: "TPROXY gives the SYNs of 20 clients a second to a listener on another port, which never calls accept(); the port of the clients is asked about.",
			Ports:   []uint16{world.Server4.Port()}, Place: proxy, Begin: tproxied,
			Names: []string{"bpf_sk_assign"},
		},
		{
			Name:    "diagnose-tproxy-proxy",
			Title:   "a proxy does not accept what it gets from other ports",
			Finding: "no_acceptor",
			Explain: "TPROXY gives the SYNs of 20 clients a second to a listener on another port, which never calls accept(); the listener's own port is asked about.",
			Ports:   []uint16{proxy.Port()}, Place: proxy, Begin: tproxied,
		},
		{
			Name: "diagnose-v6only", Title: "a listener is for IPv6 only",
			Finding: "no_listener", Place: world.Any6,
			Names:   []string{"IPV6_V6ONLY", "lab-proxy"},
			Explain: "The SYNs of 20 clients a second come by IPv4 to the port of a listener that is for IPv6 only, and are refused.",
			Ports:   []uint16{world.Server4.Port()},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return steady(w, world.Server4, every, 1), idle(w,
					server.ListenConfig{Addr: world.Any6, Backlog: 128,
						Options: []server.SocketOption{server.IntOption(unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)}}, log)
			},
		},
		{
			Name:    "diagnose-device-bound",
			Title:   "a listener is bound to another device",
			Finding: "no_listener", Place: world.Any4,
			Names:   []string{"SO_BINDTODEVICE", world.TUNName},
			Explain: "The SYNs of 20 clients a second come in by another device than the one that the port's listener is bound to, and are refused.",
			Ports:   []uint16{world.Server4.Port()},
			Begin: func(_ context.Context, w *world.World,
				log func(string, ...any)) (traffic, error) {
				return steady(w, world.Server4, every, 1), idle(w,
					server.ListenConfig{Addr: world.Any4, Backlog: 128,
						Options: []server.SocketOption{{Level: unix.SOL_SOCKET,
							Name: unix.SO_BINDTODEVICE, Value: []byte("lo\x00")}}}, log)
			},
		},
	}
}

// diversion is where a rule sends what is for another port: to a port of this host.
type diversion struct {
	to          uint16
	transparent bool // TPROXY; else REDIRECT
}

// divert adds such a rule for an address, as nft would:
//
//	table ip lab { chain divert { type nat hook prerouting priority -100;
//	    ip daddr 10.99.0.1 tcp dport 8080 redirect to :8087 } }
//
// The error is that of addRule.
func divert(w *world.World, from netip.AddrPort, d diversion) error {
	family, offset := nftables.TableFamilyIPv4, uint32(16)
	if from.Addr().Is6() {
		family, offset = nftables.TableFamilyIPv6, 24
	}
	kind, priority := nftables.ChainTypeNAT, nftables.ChainPriorityNATDest
	var target expr.Any = &expr.Redir{RegisterProtoMin: 1}
	if d.transparent {
		kind, priority = nftables.ChainTypeFilter, nftables.ChainPriorityMangle
		target = &expr.TProxy{Family: byte(family), TableFamily: byte(family), RegPort: 1}
	}
	return w.AddRule("nf_tables with nft_redir or nft_tproxy",
		func(conn *nftables.Conn) *nftables.Chain {
			table := conn.AddTable(&nftables.Table{Family: family, Name: "divert"})
			chain := conn.AddChain(&nftables.Chain{
				Name: "divert", Table: table, Type: kind,
				Hooknum: world.HookPrerouting, Priority: priority,
			})
			addr := from.Addr().AsSlice()
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader,
					Offset: offset, Len: uint32(len(addr))},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1,
					Data: []byte{unix.IPPROTO_TCP}},
				&expr.Payload{DestRegister: 1,
					Base:   expr.PayloadBaseTransportHeader,
					Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1,
					Data: binary.BigEndian.AppendUint16(nil, from.Port())},
				&expr.Immediate{Register: 1,
					Data: binary.BigEndian.AppendUint16(nil, d.to)},
				target,
			}})
			return chain
		})
}
