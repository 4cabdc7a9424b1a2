// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
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
type filteredServer func(w *World, f family, syns, acks refusal) (*Server, error)

// withSocketFilters gives each listener its own, as SO_ATTACH_FILTER does.
func withSocketFilters(w *World, f family, syns, acks refusal) (*Server, error) {
	return w.StartServer(ServerConfig{Listeners: []ListenConfig{
		{Addr: at(f.listener, syns.port), Backlog: backlog, Filter: refuse(syns.flags)},
		{Addr: at(f.listener, acks.port), Backlog: backlog, Filter: refuse(acks.flags)},
	}})
}

// withCgroupFilter makes the listeners in a cgroup whose ingress program refuses
// both. The cgroup that counts is the one in which a socket was made.
func withCgroupFilter(w *World, f family, syns, acks refusal) (*Server, error) {
	c, err := w.newCgroup()
	if err != nil {
		return nil, err
	}
	if err := w.attachIngress(c, f, []refusal{syns, acks}); err != nil {
		return nil, err
	}
	return w.StartServer(ServerConfig{cgroup: c.dir, Listeners: []ListenConfig{
		{Addr: at(f.listener, syns.port), Backlog: backlog}, {Addr: at(f.listener, acks.port), Backlog: backlog},
	}})
}

// playSocketFilter shows both stages. The clients of the second listener are
// connected as far as they know. One of them sends data, which the filter lets
// pass, and that finishes its handshake.
func playSocketFilter(f family, start filteredServer) playFunc {
	bound, server := f.listener, f.server
	const ackPort = port + 1
	return func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error) {
		var none Expectation
		process, err := start(w, f, refusal{port, flagSYN}, refusal{ackPort, flagACK})
		if err != nil {
			return none, err
		}
		syns, err := w.Burst(ctx, server, 3)
		if err != nil {
			return none, err
		}
		if err := wantFate(event.ActionDropped, syns...); err != nil {
			return none, err
		}
		acks, err := w.Burst(ctx, at(server, ackPort), 2)
		if err != nil {
			return none, err
		}
		if err := wantAnswers(acks, len(acks)); err != nil {
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
		if connected, err := w.established(ackPort); err != nil || connected != 0 {
			return none, fmt.Errorf("%d handshakes were finished by an ACK that the filter refuses (%w)", connected, err)
		}
		if err := acks[0].Data([]byte("hello")); err != nil {
			return none, err
		}
		if err := w.Barrier(ctx); err != nil {
			return none, err
		}
		if connected, err := w.established(ackPort); err != nil || connected != 1 {
			return none, fmt.Errorf("%d handshakes were finished by data that the filter lets pass, expected 1 (%w)", connected, err)
		}
		if reset, _ := split(acks, (*Client).WasReset); len(reset) != 0 {
			return none, fmt.Errorf("%d clients were reset by a filter", len(reset))
		}
		log("a filter dropped %d SYNs, another %d handshake ACKs; one of those clients got through with its data", len(syns), len(acks))

		first, handshakes := group(event.CauseSocketFilter, event.StageSyn, event.ActionDropped, syns)
		first.Listener, first.AcceptQueue, first.PIDs = bound, Queue{Len: 0, Limit: backlog}, []int{process.PID}
		second, more := group(event.CauseSocketFilter, event.StageAck, event.ActionDropped, acks)
		second.Listener, second.PIDs = at(bound, ackPort), []int{process.PID}
		e := Expectation{Records: []Expect{first, second}, Counters: counters(nil), Handshakes: handshakes + more}
		e.owners(process)
		return e, nil
	}
}
