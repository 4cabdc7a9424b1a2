// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/test/churn"
)

// TestChurn drops SYNs on a few of 10,000 listeners of one process, and on one that
// thousands of short-lived processes inherit, while others open and close. Who held
// a listener at the moment is a matter of luck; who never did must not be named.
func TestChurn(t *testing.T) {
	const (
		first, many, backlog = 10_000, 10_000, 3
		during, pause        = 4 * time.Second, 20 * time.Millisecond
	)
	w := newWorld(t)
	holder := startServer(t, w, "holder", server.ListenConfig{Addr: anyAddr(first), Many: many,
		Backlog: backlog})
	churner, err := churn.Start(w, churn.Config{
		Comm: "churner", Port: port, Backlog: backlog, PerSecond: 2000,
	})
	must(t, err)
	t.Cleanup(func() { must(t, churner.Close()) })
	ports := []uint16{first, port, first + 4711, first + many - 1}
	frames := make(map[uint16][][]byte)
	for _, p := range ports {
		to := netip.AddrPortFrom(world.ServerAddr4, p)
		fill(t, w, to, backlog)
		frames[p] = w.SYNFrames(to, int(during/pause)/len(ports))
	}
	tr := start(t, "--rate", "0", "--netns", w.Path())
	before, err := churner.Done()
	must(t, err)
	began := time.Now()
	want := make(map[uint16]int)
	for i := range int(during / pause) {
		p := ports[i%len(ports)]
		must(t, w.Inject(frames[p][i/len(ports):][:1]))
		want[p]++
		time.Sleep(pause)
	}
	peak := peakMemory(t, tr.cmd.Process.Pid)
	a := tr.stop()
	churned, err := churner.Done()
	must(t, err)
	took := time.Since(began)
	if len(churned.PIDs) == 0 || churned.Listeners == 0 {
		t.Fatalf("nothing churned: %d processes, %d listeners", len(churned.PIDs),
			churned.Listeners)
	}

	ran := make(map[int]bool, len(churned.PIDs))
	for _, pid := range churned.PIDs {
		ran[pid] = true
	}
	got := make(map[uint16]int)
	inherited := 0
	var late []time.Duration
	for _, r := range a.of(w.NetNS()) {
		late = append(late, r.read.Sub(r.Time))
		got[r.Listener.Port]++
		if *r.Listener.AcceptQueue != (queue{backlog + 1, backlog}) ||
			r.Server.Port != r.Listener.Port {
			t.Errorf("listener %+v of a SYN to port %d", r.Listener, r.Server.Port)
		}
		if r.Listener.Port != port {
			if !slices.Equal(r.pids(), []int{holder.PID}) ||
				r.Processes[0].Comm != "holder" {
				t.Errorf("port %d: processes %+v, want %d alone", r.Listener.Port,
					r.Processes, holder.PID)
			}
			continue
		}
		if !slices.Contains(r.pids(), churner.PID) {
			t.Errorf("port %d: processes %+v, want %d among them", port, r.Processes,
				churner.PID)
		}
		for _, p := range r.Processes {
			switch {
			case p.PID == churner.PID && p.Comm == "churner":
			case ran[p.PID] && (p.Comm == churned.Comm || p.Comm == "churner"): // after and before execve()
				inherited++
			default:
				t.Errorf("port %d: %+v never held it", port, p)
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("records by port %v, want %v", got, want)
	}
	a.wantRow(w.NetNS(), "ListenOverflows", int(during/pause), 0)
	slices.Sort(late)
	perSecond := float64(len(churned.PIDs)-len(before.PIDs)) / took.Seconds()
	t.Logf("%.0f processes a second, %d of them named, %d listeners opened and closed; ready after %v, %d KiB at its peak; "+
		"a record took %v, the slowest hundredth %v", perSecond, inherited,
		churned.Listeners, tr.took, peak, late[len(late)/2], late[len(late)*99/100])
}
