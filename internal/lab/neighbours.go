// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// playReuseportOneFull plays clients from many addresses. The kernel spreads
// them by a hash of both addresses and ports (reuseport_select_sock) and never
// moves one to a member that has room. Completed handshakes fill the stuck
// member; after that no answer means that it dropped the SYN, as the other
// accepts faster than clients come.
func playReuseportOneFull(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const wanted, limit = 5, 2000
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	stuck, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-stuck"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: backlog, ReusePort: true}},
	})
	if err != nil {
		return none, err
	}
	healthy, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-healthy"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: 512, ReusePort: true, Accept: true}},
	})
	if err != nil {
		return none, err
	}
	var dropped []*Client
	connected := 0
	for len(dropped) < wanted {
		if connected == limit {
			return none, fmt.Errorf("%d clients, and only %d met the full member", limit, len(dropped))
		}
		clients, err := w.Burst(ctx, server4, 1)
		if err != nil {
			return none, err
		}
		if c := clients[0]; !c.Answered() {
			dropped = append(dropped, c)
		} else if err := c.ACK(); err != nil {
			return none, err
		} else {
			connected++
		}
	}
	log("%d clients connected, %d got no answer from the stuck member", connected, len(dropped))

	n := len(dropped)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: n,
			Listener: any4, AcceptQueue: overfull, Clients: addresses(dropped), Attempts: first(n), PIDs: []int{stuck.PID},
		}},
		Counters: counters(map[event.Counter]uint64{
			event.CounterListenOverflows: uint64(n),
			event.CounterListenDrops:     uint64(n),
		}),
		Syns: w.Syns(), Handshakes: n,
	}
	e.owners(stuck, healthy)
	return e, nil
}

// playReuseportBound plays inet_lhash2_lookup, which returns from the first group that has a match, not from the best.
func playReuseportBound(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const drops = 5
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	toDevice := SocketOption{Level: unix.SOL_SOCKET, Name: unix.SO_BINDTODEVICE, Value: []byte(tunName + "\x00")}
	passedBy, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-on-device"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: 512, ReusePort: true, Accept: true, Options: []SocketOption{toDevice}}},
	})
	if err != nil {
		return none, err
	}
	full, err := w.StartServer(ServerConfig{
		Comm:      []byte("lab-last"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: backlog, ReusePort: true}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, server4, backlog+1); err != nil {
		return none, err
	}
	dropped, err := w.unanswered(ctx, server4, drops)
	if err != nil {
		return none, err
	}
	log("%d SYNs got no answer from process %d, none came to process %d", drops, full.PID, passedBy.PID)
	e := Expectation{
		Records: []Expect{{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: drops,
			Listener: any4, AcceptQueue: overfull, Clients: addresses(dropped), Attempts: first(drops), PIDs: []int{full.PID},
		}},
		Counters: counters(map[event.Counter]uint64{event.CounterListenOverflows: drops, event.CounterListenDrops: drops}),
		Syns:     w.Syns(), Handshakes: drops,
	}
	e.owners(full, passedBy)
	return e, nil
}

// hostileComm clears a terminal that prints it as it is, breaks lines, and is
// no valid UTF-8.
const hostileComm = "ev\x1b[2J\n\"<b>\xff\xfe"

func playTwoPorts(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	var none Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	ports := []struct{ port, backlog, drops int }{{port, backlog, 5}, {port + 1, 1, 3}}
	config := ServerConfig{Comm: []byte(hostileComm)}
	for _, p := range ports {
		config.Listeners = append(config.Listeners, ListenConfig{
			Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(p.port)), Backlog: p.backlog,
		})
	}
	server, err := w.StartServer(config)
	if err != nil {
		return none, err
	}
	e := Expectation{}
	for i, p := range ports {
		address := netip.AddrPortFrom(ServerAddr4, uint16(p.port))
		if err := w.Handshakes(ctx, address, p.backlog+1); err != nil {
			return none, err
		}
		dropped, err := w.unanswered(ctx, address, p.drops)
		if err != nil {
			return none, err
		}
		e.Handshakes += p.drops
		e.Records = append(e.Records, Expect{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn, Action: event.ActionDropped, Count: p.drops,
			Listener: config.Listeners[i].Addr, AcceptQueue: Queue{Len: p.backlog + 1, Limit: p.backlog},
			Clients: addresses(dropped), Attempts: first(p.drops), PIDs: []int{server.PID},
		})
		log("port %d: %d SYNs got no answer", p.port, p.drops)
	}
	e.Counters = counters(map[event.Counter]uint64{
		event.CounterListenOverflows: uint64(e.Handshakes),
		event.CounterListenDrops:     uint64(e.Handshakes),
	})
	e.Syns = w.Syns()
	e.owners(server)
	return e, nil
}

// playOtherNamespace keeps a second World alive until the first is closed.
func playOtherNamespace(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
	const healthy = 20
	var none Expectation
	other, err := NewWorld(ctx)
	if err != nil {
		return none, err
	}
	w.keep(other)
	if _, err := other.StartServer(ServerConfig{
		Comm:      []byte("lab-healthy"),
		Listeners: []ListenConfig{{Addr: any4, Backlog: 512, Accept: true}},
	}); err != nil {
		return none, err
	}
	if err := other.Handshakes(ctx, server4, healthy/2); err != nil {
		return none, err
	}
	e, err := playAcceptQueueFullSyn(ctx, w, log)
	if err != nil {
		return none, err
	}
	if err := other.Handshakes(ctx, server4, healthy/2); err != nil {
		return none, err
	}
	still, err := other.Counters()
	if err != nil {
		return none, err
	}
	for c, n := range still {
		if n != 0 {
			return none, fmt.Errorf("healthy namespace counted %s %d", c, n)
		}
	}
	e.Quiet = []uint64{other.NetNS()}
	log("meanwhile %d clients connected in namespace %d", healthy, other.NetNS())
	return e, nil
}
