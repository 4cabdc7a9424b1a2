// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// refuse is a filter that drops packets with exactly these TCP flags. A TCP
// socket's filter sees the packet from its TCP header on (tcp_filter); a
// listener's also decides on the packets of its half-open handshakes.
func refuse(flags uint8) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(flags), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
}

// filteredServer starts a server with two listeners, one of whose filters refuses
// SYNs, the other's bare ACKs.
type filteredServer func(w *world.World, f world.Family, syns, acks world.Refusal) (*server.Server,
	error)

// withSocketFilters gives each listener its own, as SO_ATTACH_FILTER does.
func withSocketFilters(w *world.World, f world.Family, syns, acks world.Refusal) (*server.Server,
	error) {
	return server.Start(w, server.Config{Listeners: []server.ListenConfig{
		{Addr: world.At(f.Listener, syns.Port), Backlog: world.Backlog,
			Filter: refuse(syns.Flags)},
		{Addr: world.At(f.Listener, acks.Port), Backlog: world.Backlog,
			Filter: refuse(acks.Flags)},
	}})
}

// withCgroupFilter makes the listeners in a cgroup whose ingress program refuses
// both. The cgroup that counts is the one in which a socket was made.
func withCgroupFilter(w *world.World, f world.Family, syns, acks world.Refusal) (*server.Server,
	error) {
	c, err := w.NewCgroup()
	if err != nil {
		return nil, err
	}
	if err := w.AttachIngress(c, f, []world.Refusal{syns, acks}); err != nil {
		return nil, err
	}
	return server.Start(w, server.Config{Cgroup: c.Dir, Listeners: []server.ListenConfig{
		{Addr: world.At(f.Listener, syns.Port),
			Backlog: world.Backlog}, {Addr: world.At(f.Listener,
			acks.Port), Backlog: world.Backlog},
	}})
}

// playSocketFilter shows both stages. The clients of the second listener are
// connected as far as they know. One of them sends data, which the filter lets
// pass, and that finishes its handshake.
func playSocketFilter(f world.Family, start filteredServer) scenario.PlayFunc {
	bound, server := f.Listener, f.Server
	const ackPort = world.Port + 1
	return func(ctx context.Context, w *world.World,
		log func(string, ...any)) (scenario.Expectation, error) {
		var none scenario.Expectation
		process, err := start(w, f, world.Refusal{Port: world.Port, Flags: world.FlagSYN},
			world.Refusal{Port: ackPort, Flags: world.FlagACK})
		if err != nil {
			return none, err
		}
		syns, err := w.Burst(ctx, server, 3)
		if err != nil {
			return none, err
		}
		if err := scenario.WantAction(event.ActionDropped, syns...); err != nil {
			return none, err
		}
		acks, err := w.Burst(ctx, world.At(server, ackPort), 2)
		if err != nil {
			return none, err
		}
		if err := scenario.WantAnswers(acks, len(acks)); err != nil {
			return none, err
		}
		for _, c := range acks {
			if err := c.ACK(); err != nil {
				return none, err
			}
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if connected, err := scenario.Established(w, ackPort); err != nil ||
			connected != 0 {
			return none, fmt.Errorf("%d handshakes were finished by an ACK that the filter refuses (%w)", connected, err)
		}
		if err := acks[0].Data([]byte("hello")); err != nil {
			return none, err
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if connected, err := scenario.Established(w, ackPort); err != nil ||
			connected != 1 {
			return none, fmt.Errorf("%d handshakes were finished by data that the filter lets pass, expected 1 (%w)", connected, err)
		}
		if reset, _ := scenario.Split(acks, (*world.Client).WasReset); len(reset) != 0 {
			return none, fmt.Errorf("%d clients were reset by a filter", len(reset))
		}
		log("a filter dropped %d SYNs, another %d handshake ACKs; one of those clients got through with its data", len(syns), len(acks))

		first, handshakes := scenario.Group(event.CauseSocketFilter, event.StageSyn,
			event.ActionDropped, syns)
		first.Listener, first.AcceptQueue, first.PIDs = bound, scenario.Queue{Len: 0,
			Limit: world.Backlog}, []int{process.PID}
		second, more := scenario.Group(event.CauseSocketFilter, event.StageAck,
			event.ActionDropped, acks)
		second.Listener, second.PIDs = world.At(bound, ackPort), []int{process.PID}
		e := scenario.Expectation{Records: []scenario.Expect{first, second},
			Counters: scenario.Counters(nil), Handshakes: handshakes + more}
		e.Owners(process)
		return e, nil
	}
}
