// SPDX-License-Identifier: Apache-2.0

package listenpath

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// playReuseportOneFull plays clients from many addresses. The kernel spreads
// them by a hash of both addresses and ports (reuseport_select_sock) and never
// moves one to a member that has room. Completed handshakes fill the stuck
// member; after that no answer means that it dropped the SYN, as the other
// accepts faster than clients come.
func playReuseportOneFull(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const wanted, limit = 5, 2000
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	stuck, err := server.Start(w, server.Config{
		Comm: []byte("lab-stuck"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: world.Backlog,
			ReusePort: true}},
	})
	if err != nil {
		return none, err
	}
	healthy, err := server.Start(w, server.Config{
		Comm: []byte("lab-healthy"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: 512, ReusePort: true,
			Accept: true}},
	})
	if err != nil {
		return none, err
	}
	var dropped []*world.Client
	connected := 0
	for len(dropped) < wanted {
		if connected == limit {
			return none, fmt.Errorf("%d clients, and only %d met the full member",
				limit, len(dropped))
		}
		clients, err := w.Burst(ctx, world.Server4, 1)
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

	e := foundFull(w, dropped)
	e.Records[0].Listener, e.Records[0].AcceptQueue = world.Any4, scenario.Overfull
	e.Records[0].PIDs = []int{stuck.PID}
	e.Owners(stuck, healthy)
	return e, nil
}

// playReuseportBound plays inet_lhash2_lookup, which returns from the first group that has a match,
// not from the best.
func playReuseportBound(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const drops = 5
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	toDevice := server.SocketOption{Level: unix.SOL_SOCKET, Name: unix.SO_BINDTODEVICE,
		Value: []byte(world.TUNName + "\x00")}
	passedBy, err := server.Start(w, server.Config{
		Comm: []byte("lab-on-device"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: 512, ReusePort: true,
			Accept: true, Options: []server.SocketOption{toDevice}}},
	})
	if err != nil {
		return none, err
	}
	full, err := server.Start(w, server.Config{
		Comm: []byte("lab-last"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: world.Backlog,
			ReusePort: true}},
	})
	if err != nil {
		return none, err
	}
	if err := w.Handshakes(ctx, world.Server4, world.Backlog+1); err != nil {
		return none, err
	}
	dropped, err := scenario.Unanswered(ctx, w, world.Server4, drops)
	if err != nil {
		return none, err
	}
	log("%d SYNs got no answer from process %d, none came to process %d", drops, full.PID,
		passedBy.PID)
	e := foundFull(w, dropped)
	e.Records[0].Listener, e.Records[0].AcceptQueue = world.Any4, scenario.Overfull
	e.Records[0].PIDs = []int{full.PID}
	e.Owners(full, passedBy)
	return e, nil
}

// HostileComm clears a terminal that prints it as it is, breaks lines, and is
// no valid UTF-8.
const HostileComm = "ev\x1b[2J\n\"<b>\xff\xfe"

func playTwoPorts(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	var none scenario.Expectation
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "1"); err != nil {
		return none, err
	}
	ports := []struct{ port, backlog, drops int }{{world.Port, world.Backlog, 5},
		{world.Port + 1, 1, 3}}
	config := server.Config{Comm: []byte(HostileComm)}
	for _, p := range ports {
		config.Listeners = append(config.Listeners, server.ListenConfig{
			Addr: netip.AddrPortFrom(netip.IPv4Unspecified(),
				uint16(p.port)), Backlog: p.backlog,
		})
	}
	server, err := server.Start(w, config)
	if err != nil {
		return none, err
	}
	e := scenario.Expectation{}
	for i, p := range ports {
		address := netip.AddrPortFrom(world.ServerAddr4, uint16(p.port))
		if err := w.Handshakes(ctx, address, p.backlog+1); err != nil {
			return none, err
		}
		dropped, err := scenario.Unanswered(ctx, w, address, p.drops)
		if err != nil {
			return none, err
		}
		e.Handshakes += p.drops
		e.Records = append(e.Records, scenario.Expect{
			Cause: event.CauseAcceptQueueFull, Stage: event.StageSyn,
			Action: event.ActionDropped, Count: p.drops,
			Listener:    config.Listeners[i].Addr,
			AcceptQueue: scenario.Queue{Len: p.backlog + 1, Limit: p.backlog},
			Clients:     scenario.Addresses(dropped), Attempts: scenario.First(p.drops),
			PIDs: []int{server.PID},
		})
		log("port %d: %d SYNs got no answer", p.port, p.drops)
	}
	e.Counters = scenario.Counters(map[event.Counter]uint64{
		event.CounterListenOverflows: uint64(e.Handshakes),
		event.CounterListenDrops:     uint64(e.Handshakes),
	})
	e.Syns = w.Syns()
	e.Owners(server)
	return e, nil
}

// PlayOtherNamespace keeps a second World alive until the first is closed.
func PlayOtherNamespace(ctx context.Context, w *world.World,
	log func(string, ...any)) (scenario.Expectation, error) {
	const healthy = 20
	var none scenario.Expectation
	other, err := world.New(ctx)
	if err != nil {
		return none, err
	}
	w.Keep(other)
	if _, err := server.Start(other, server.Config{
		Comm:      []byte("lab-healthy"),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: 512, Accept: true}},
	}); err != nil {
		return none, err
	}
	if err := other.Handshakes(ctx, world.Server4, healthy/2); err != nil {
		return none, err
	}
	e, err := playAcceptQueueFullSyn(ctx, w, log)
	if err != nil {
		return none, err
	}
	if err := other.Handshakes(ctx, world.Server4, healthy/2); err != nil {
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
