// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// overflowAtAck sends 10 SYNs to a listen(3) that nobody accepts from, then
// their ACKs, then 5 more SYNs: 4 connections fit. It returns those whose ACK
// was lost and those whose SYN was.
//
// Cookies' ACKs go first: they need no place in the SYN queue, so whatever its
// exact limit is, the number of ACKs lost is 6.
func overflowAtAck(t testing.TB, w *world.World, to netip.AddrPort) (acks, syns []*world.Client) {
	t.Helper()
	clients, err := w.Burst(t.Context(), to, 10)
	must(t, err)
	var ordered, requests []*world.Client
	for _, c := range clients {
		switch {
		case !c.Answered():
			t.Fatalf("the SYN of %s was not answered", c.Local)
		case c.Cookie():
			ordered = append(ordered, c)
		default:
			requests = append(requests, c)
		}
	}
	if len(ordered) < 4 || len(requests) == 0 {
		t.Fatalf("%d cookies and %d requests: the scenario is not what it should be",
			len(ordered), len(requests))
	}
	ordered = append(ordered, requests...)
	for _, c := range ordered {
		must(t, c.ACK())
	}
	return ordered[4:], loseSYNs(t, w, to, 5)
}

// TestTUN is the case of a known number: 6 ACKs and 5 SYNs die, nothing else
// does, and a namespace that is busy on the same address and port stays out.
func TestTUN(t *testing.T) {
	path, dir := newCgroup(t, "tun")
	w, other := newWorld(t), newWorld(t)
	s := startServer(t, w, "tun-server", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	moveTo(t, dir, s.PID)
	if have := cgroupOf(t, s.PID); have != path {
		t.Fatalf("/proc says the server is in cgroup %s, want %s", have, path)
	}
	healthy := startServer(t, other, "tun-healthy",
		server.ListenConfig{Addr: anyAddr(port), Backlog: 512, Accept: true})

	tr := start(t, "--rate", "0")
	before := counters(t, w)
	quit := make(chan struct{})
	var traffic sync.WaitGroup
	served := 0
	traffic.Go(func() {
		for {
			if err := other.Handshakes(t.Context(), server4, 10); err != nil {
				t.Error(err)
				return
			}
			served += 10
			select {
			case <-quit:
				return
			default:
			}
		}
	})
	acks, syns := overflowAtAck(t, w, server4)
	close(quit)
	traffic.Wait()
	must(t, other.Barrier(t.Context())) // where softirqs are threads, its last ACKs may still be on their way
	a := tr.stop()
	t.Logf("backend %s, ready after %v; %d clients were served next door", a.backend, tr.took,
		served)

	drops := a.of(w.NetNS())
	var atAck, atSyn []record
	for _, r := range drops {
		if r.Stage == "ack" {
			atAck = append(atAck, r)
		} else {
			atSyn = append(atSyn, r)
		}
	}
	if !slices.Equal(clientsOf(atAck), locals(acks)) {
		t.Errorf("at ack: %v, want %v", clientsOf(atAck), locals(acks))
	}
	if !slices.Equal(clientsOf(atSyn), locals(syns)) {
		t.Errorf("at syn: %v, want %v", clientsOf(atSyn), locals(syns))
	}
	for i, r := range drops {
		sees := map[string]string{"ack": "stalled", "syn": "timeout"}[r.Stage]
		if r.Cause != "accept_queue_full" || r.Action != "dropped" ||
			r.Proof != "counters" || r.ClientSees != sees || r.Attempt != 1 {
			t.Errorf("record %d: %+v", i, r)
		}
		l := r.Listener
		if l.endpoint != (endpoint{netip.IPv4Unspecified(), port}) ||
			l.AcceptQueue == nil || *l.AcceptQueue != (queue{4, 3}) {
			t.Errorf("record %d: listener %+v, accept queue %+v", i, l, l.AcceptQueue)
		}
		if r.Server == nil || *r.Server != (endpoint{world.ServerAddr4, port}) {
			t.Errorf("record %d: server %v", i, r.Server)
		}
		if len(r.Processes) != 1 || r.Processes[0].PID != s.PID ||
			r.Processes[0].Comm != "tun-server" {
			t.Errorf("record %d: processes %+v, want %d tun-server", i, r.Processes,
				s.PID)
			continue
		}
		for _, cg := range []*cgroup{r.Cgroup, r.Processes[0].Cgroup} {
			if cg == nil || cg.Path != path || cg.ID != inode(t, dir) {
				t.Errorf("record %d: cgroup %+v, want %s with ID %d", i, cg, path,
					inode(t, dir))
			}
		}
	}
	for _, c := range []event.Counter{event.CounterListenOverflows, event.CounterListenDrops} {
		if n := moved(t, w, before, c); n != 11 {
			t.Errorf("/proc says %s moved by %d, want 11", c, n)
		}
		if r := a.wantRow(w.NetNS(), c.String(), 11, 0); r.Synspy != 11 {
			t.Errorf("%s: %+v, want 11", c, r)
		}
	}

	// Next door nothing died: no row says otherwise, and nobody is named.
	for _, r := range a.summary.Ledger {
		if r.NetNS == other.NetNS() && r.Kernel+r.Synspy+r.Unattributed+r.Filtered != 0 {
			t.Errorf("the healthy namespace has %+v", r)
		}
	}
	for i, r := range a.drops {
		if slices.Contains(r.pids(), healthy.PID) || r.Listener != nil &&
			r.Listener.NetNS == other.NetNS() {
			t.Errorf("record %d names the healthy server: %+v", i, r)
		}
	}
	for _, s := range a.summary.Seen {
		if s.Listener.NetNS == w.NetNS() && (s.Syn != 15 || s.Ack != 10) {
			t.Errorf("seen %d SYNs and %d ACKs, sent 15 and 10", s.Syn, s.Ack)
		}
		if s.Listener.NetNS == other.NetNS() && (s.Syn != served || s.Ack != served) {
			t.Errorf("next door: seen %d SYNs and %d ACKs, sent %d", s.Syn, s.Ack,
				served)
		}
	}
}
