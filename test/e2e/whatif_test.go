// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// TestWhatIf plays a burst against a small backlog, and again against the limit that the
// diagnosis recommends: what it says would have been dropped is compared with what is.
func TestWhatIf(t *testing.T) {
	// All are there long before 55 of them are accepted, so that a limit of 64 is too small,
	// and the last waits 0.4 s, well below the second from which on a longer queue is no help.
	const clients, backlog, pause, tolerance = 120, 16, 3 * time.Millisecond, 0.25

	group := favouredGroup(t) // before what is in it, which ends first then
	w := newWorld(t)
	unhurried(t, w, group, "small", backlog, pause)
	before := counters(t, w)
	d := diagnoseMeanwhile(t, w, burst(w, clients))
	observed := moved(t, w, before, event.CounterListenOverflows)
	if len(d.Listeners) != 1 || d.Listeners[0].WhatIf == nil {
		t.Fatalf("no replay of one listener: %+v", d.Listeners)
	}
	replay := d.Listeners[0].WhatIf
	present := replay.Rows[0]
	t.Logf("at a limit of %d: %d dropped, %d of them seen, the replay has %d; %s", backlog,
		observed, replay.Observed, present.Dropped, replay.Says)
	if observed < clients-backlog-60 {
		t.Fatalf("%d packets dropped: the burst is not what it should be", observed)
	}
	if !present.Present || present.Limit != backlog || replay.Limit == nil {
		points, err := json.Marshal(d.Timeline)
		must(t, err)
		t.Fatalf("no recommended limit: %+v\n%s", replay, points)
	}
	if off := float64(present.Dropped) - float64(observed); max(off,
		-off) > tolerance*float64(observed) {
		t.Errorf("the replay drops %d packets, %d were dropped: more than %.0f%% off",
			present.Dropped, observed, 100*tolerance)
	}

	w = newWorld(t)
	unhurried(t, w, group, "large", int(*replay.Limit), pause)
	before = counters(t, w)
	must(t, burst(w, clients)(t.Context()))
	if n := moved(t, w, before, event.CounterListenDrops); n != 0 {
		t.Errorf("at the recommended limit of %d %d packets were dropped, want none",
			*replay.Limit, n)
	}
}

// TestWhatIfRetries: who gets through when he tries again is one client, not two. That he does is
// known of each.
func TestWhatIfRetries(t *testing.T) {
	const clients, backlog, pause = 128, 16, time.Millisecond
	group := favouredGroup(t) // before what is in it, which ends first then
	w := newWorld(t)
	unhurried(t, w, group, "small", backlog, pause)
	before := counters(t, w)
	again := 0
	d := diagnoseMeanwhile(t, w, func(ctx context.Context) error {
		lost, err := burstOf(ctx, w, clients)
		if err != nil {
			return err
		}
		again = len(lost)
		time.Sleep(time.Second) // a client's timer, no condition
		for _, c := range lost {
			if err := errors.Join(c.SYN(), c.WaitSYNACK(ctx), c.ACK()); err != nil {
				return err
			}
			time.Sleep(4 * pause) // so that it is accepted before the next
		}
		return nil
	})
	dropped := moved(t, w, before, event.CounterListenOverflows)
	if again == 0 || dropped != again || len(d.Listeners) != 1 || d.Listeners[0].WhatIf == nil {
		t.Fatalf("%d dropped, %d of them came again: not what it should be: %+v", dropped,
			again, d.Listeners)
	}
	replay := d.Listeners[0].WhatIf
	var arrivals, retries, drops uint64
	for _, p := range d.Timeline[0].Points {
		for _, v := range []struct{ sum, n *uint64 }{{&arrivals, p.Arrivals},
			{&retries, p.Retries}, {&drops, p.Drops}} {
			if v.n != nil {
				*v.sum += *v.n
			}
		}
	}
	t.Logf("%d dropped; %s; it assumes %q", dropped, replay.Says, replay.Assumes)
	if int(arrivals) != clients+again || int(retries) != again || int(drops) != again {
		t.Errorf("the timeline has %d arrivals, %d of them again, and %d drops; want %d, %d, %d", arrivals, retries, drops, clients+again, again, again)
	}
	if replay.Arrivals != clients {
		t.Errorf("%d handshakes are replayed, want %d", replay.Arrivals, clients)
	}
}

// TestAskedBacklog: what a listener that opens meanwhile asked for is seen, so that the limit is
// known to be cut.
func TestAskedBacklog(t *testing.T) {
	// Few clients: also a slow machine accepts them within the second that a longer queue may
	// take.
	const clients, somaxconn, backlog = 40, 16, 512
	w := newWorld(t)
	must(t, w.Sysctl("net.core.somaxconn", strconv.Itoa(somaxconn)))
	d := diagnoseMeanwhile(t, w, func(ctx context.Context) error {
		_, err := server.Start(w,
			server.Config{Comm: []byte("asking"), Listeners: []server.ListenConfig{
				{Addr: anyAddr(port), Backlog: backlog, Accept: true,
					Pause: 3 * time.Millisecond}}})
		if err != nil {
			return err
		}
		return burst(w, clients)(ctx)
	})
	i := slices.IndexFunc(d.Findings, func(f event.Finding) bool {
		return f.ID == event.FindingBacklogCapped
	})
	if i < 0 {
		t.Fatalf("nothing says that the backlog was cut: %s %+v", d.Verdict, d.Findings)
	}
	f := d.Findings[i]
	want, sure := "listen() asked for 512 and net.core.somaxconn cut it to 16",
		event.ConfidenceProven
	symbols, err := os.ReadFile("/proc/kallsyms")
	must(t, err)
	if !strings.Contains(string(symbols), " bpf_task_pt_regs\n") { // before 5.15 it is not seen, and said to be unknown
		want, sure = "net.core.somaxconn caps the accept queue at 16, and listen() asked for no less", event.ConfidenceLikely
	}
	if f.Title != want || f.Confidence != sure {
		t.Errorf("%s, %s; want %s, %s", f.Title, f.Confidence, want, sure)
	}
}

// unhurried starts a server that waits between accepts, and not also for a CPU that others have.
func unhurried(t *testing.T, w *world.World, group, comm string, backlog int, pause time.Duration) {
	t.Helper()
	server := startServer(t, w, comm, server.ListenConfig{Addr: anyAddr(port), Backlog: backlog,
		Accept: true, Pause: pause})
	join(t, group, server.PID)
}

// diagnoseMeanwhile diagnoses a namespace from before the traffic begins until a little after it
// ended.
func diagnoseMeanwhile(t *testing.T, w *world.World, traffic func(context.Context) error,
) (d event.Diagnosis) {
	t.Helper()
	cmd := exec.Command(program, "diagnose", "--netns", w.Path(), "--duration", "1m", "-o",
		"json")
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), " of 1m0s: ") { // how it goes, once a second: so it goes
		t.Log(lines.Text())
	}
	ctx, cancel := context.WithCancel(t.Context())
	played := make(chan error, 1)
	go func() { played <- traffic(ctx) }()
	for after := 0; lines.Scan(); {
		if len(played) > 0 {
			after++
		}
		if after == 2 {
			must(t, cmd.Process.Signal(os.Interrupt))
		}
	}
	cancel()
	must(t, <-played)
	must(t, cmd.Wait())
	must(t, json.Unmarshal(stdout.Bytes(), &d))
	return d
}

// burst lets clients come one right after the other, each of which tries once. Each finishes its
// handshake, if it can, before the next begins: so all meet the accept queue, and none the SYN
// queue.
func burst(w *world.World, n int) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := burstOf(ctx, w, n)
		return err
	}
}

// burstOf returns the clients that got no answer.
func burstOf(ctx context.Context, w *world.World, n int) (lost []*world.Client, err error) {
	for range n {
		c := w.Client(server4)
		if err := errors.Join(c.SYN(), w.Barrier(ctx)); err != nil {
			return nil, err
		}
		if !c.Answered() {
			lost = append(lost, c)
			continue
		}
		if err := c.ACK(); err != nil {
			return nil, err
		}
	}
	return lost, nil
}
