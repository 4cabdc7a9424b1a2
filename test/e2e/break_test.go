// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// TestVanishedNamespace closes namespaces while they are traced, and lets new
// ones come, which often get the memory of those that went.
func TestVanishedNamespace(t *testing.T) {
	const generations = 6
	// A port of its own: other tests' namespaces may get the same numbers.
	const port = 8137
	server4 := netip.AddrPortFrom(world.ServerAddr4, port)
	tr := start(t, "--port", strconv.Itoa(port))
	drops := make(map[uint64]int)
	for i := range generations {
		w, err := world.New(context.Background())
		must(t, err)
		startServer(t, w, fmt.Sprintf("short-lived-%d", i),
			server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
		fill(t, w, server4, 3)
		loseSYNs(t, w, server4, 5+i)
		drops[w.NetNS()] += 5 + i // its number, too, may come again
		must(t, w.Close())
		settleRCU(t) // cleanup_net frees it after a grace period or two
	}
	w := newWorld(t)
	server := startServer(t, w, "survivor",
		server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	loseSYNs(t, w, server4, 9)
	a := tr.stop()
	if _, ok := drops[w.NetNS()]; !ok {
		drops[w.NetNS()] = 0
	}
	for netns, n := range drops {
		if netns == w.NetNS() {
			n += 9
		}
		if got := len(a.overflows(netns)); got != n {
			t.Errorf("%d records of namespaces numbered %d, want %d", got, netns, n)
		}
		told := 0
		for _, r := range a.summary.Ledger {
			if r.NetNS != netns || r.Counter != "ListenOverflows" {
				continue
			}
			told += r.Synspy - r.Filtered
			if r.Unattributed != 0 || !r.Gone && r.Kernel != r.Synspy {
				t.Errorf("row %+v", r)
			}
		}
		if told != n {
			t.Errorf("rows of namespaces numbered %d explain %d, want %d", netns, told,
				n)
		}
	}
	living := slices.ContainsFunc(a.summary.Ledger, func(r row) bool {
		return r.NetNS == w.NetNS() && r.Counter == "ListenOverflows" && !r.Gone &&
			r.Kernel == 9 && r.Synspy == 9
	})
	if !living {
		t.Errorf("no row of the surviving namespace %d with its 9 drops: %+v", w.NetNS(),
			a.summary.Ledger)
	}
	for _, r := range a.of(w.NetNS()) {
		if r.Processes != nil && r.Processes[0].PID == server.PID &&
			r.Processes[0].Comm != "survivor" {
			t.Errorf("record of %+v", r.Processes)
		}
	}
	for i, r := range a.drops {
		if len(r.Processes) != 1 {
			t.Errorf("record %d: processes %+v", i, r.Processes)
		}
	}
}

// settleRCU waits for a grace period, and for the workers that wait for one too.
func settleRCU(t testing.TB) {
	t.Helper()
	for range 3 {
		// MEMBARRIER_CMD_GLOBAL is synchronize_rcu.
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0); errno != 0 {
			t.Fatal("membarrier:", errno)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestVanishedDuringStop closes the only namespace asked for, then stops.
func TestVanishedDuringStop(t *testing.T) {
	w, err := world.New(context.Background())
	must(t, err)
	startServer(t, w, "short-lived", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	tr := start(t, "--netns", w.Path())
	loseSYNs(t, w, server4, 5)
	must(t, w.Close())
	a := tr.stop()
	if len(a.overflows(w.NetNS())) != 5 {
		t.Errorf("%d records, want 5 of a full accept queue", len(a.drops))
	}
	if r, ok := a.row(w.NetNS(), "ListenDrops"); !ok || r.Synspy != 5 || !r.Gone &&
		r.Kernel != 5 {
		t.Errorf("row %+v, want 5", r)
	}
}

// TestManyListeners: 10,000 listeners, of which three lose packets.
func TestManyListeners(t *testing.T) {
	const first, many, backlog = 10_000, 10_000, 3
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "many", First: first, Count: many,
		Backlog: backlog})
	tr := start(t, "--rate", "0", "--netns", w.Path())
	t.Logf("%d listeners: ready after %v, %d KiB at its peak", many, tr.took,
		peakMemory(t, tr.cmd.Process.Pid))
	want := map[uint16]int{first: 2, first + 4711: 3, first + many - 1: 4}
	for port, n := range want {
		to := netip.AddrPortFrom(world.ServerAddr4, port)
		fill(t, w, to, backlog)
		loseSYNs(t, w, to, n)
	}
	a := tr.stop()
	got := map[uint16]int{}
	for _, r := range a.of(w.NetNS()) {
		got[r.Listener.Port]++
		if !slices.Equal(r.pids(), []int{h.pid}) ||
			*r.Listener.AcceptQueue != (queue{backlog + 1, backlog}) ||
			r.Server.Port != r.Listener.Port {
			t.Errorf("listener %+v of %+v", r.Listener, r.Processes)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("records by port %v, want %v", got, want)
	}
	a.wantRow(w.NetNS(), "ListenOverflows", 9, 0)
	for _, s := range a.summary.Seen {
		if n := want[s.Listener.Port]; s.Syn != n+backlog+1 {
			t.Errorf("port %d: seen %d SYNs, sent %d", s.Listener.Port, s.Syn,
				n+backlog+1)
		}
	}
	if len(a.summary.Seen) != len(want) {
		t.Errorf("%d listeners seen, want %d", len(a.summary.Seen), len(want))
	}
}

// peakMemory is VmHWM in KiB.
func peakMemory(t testing.TB, pid int) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err := fmt.Sscanf(value, "%d kB", &kib)
			must(t, err)
		}
	}
	return kib
}

// TestManyDroppingListeners drops on more listeners than a small table holds.
func TestManyDroppingListeners(t *testing.T) {
	const first, many = 10_000, 300
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "many", First: first, Count: many, Backlog: 0})
	tr := start(t, "--rate", "0", "--netns", w.Path())
	for i := range many {
		to := netip.AddrPortFrom(world.ServerAddr4, uint16(first+i))
		fill(t, w, to, 0)
		must(t, w.Inject(w.SYNFrames(to, 2)))
	}
	a := tr.stop()
	got := map[uint16]int{}
	for _, r := range a.of(w.NetNS()) {
		if slices.Equal(r.pids(), []int{h.pid}) {
			got[r.Listener.Port]++
		}
	}
	for i := range many {
		if got[uint16(first+i)] != 2 {
			t.Errorf("port %d: %d records, want 2", first+i, got[uint16(first+i)])
		}
	}
	if len(a.summary.Seen) != many {
		t.Errorf("%d listeners seen, want %d", len(a.summary.Seen), many)
	}
	for _, s := range a.summary.Seen {
		if s.Syn != 3 || s.Ack != 1 {
			t.Errorf("port %d: seen %d SYNs and %d ACKs, sent 3 and 1", s.Listener.Port,
				s.Syn, s.Ack)
		}
	}
	a.wantRow(w.NetNS(), "ListenOverflows", 2*many, 0)
}

// TestInterruptedStart sends SIGINT at every moment of the start. Before
// synspy's handler is there the signal ends it like any program, and it has
// written nothing; after that it ends cleanly.
func TestInterruptedStart(t *testing.T) {
	full := start(t)
	full.stop()
	const moments = 12
	for i := range moments {
		after := full.took * time.Duration(i) / (moments - 2) // the last one is beyond ready
		t.Run(after.Round(time.Millisecond).String(), func(t *testing.T) {
			tr := launch(t)
			time.Sleep(after) // the moment is the subject
			tr.interrupt()
			select {
			case <-tr.ended:
			case <-time.After(patience):
				t.Fatal("synspy does not end")
			}
			if status := tr.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
				if status.Signal() != syscall.SIGINT || len(tr.records) > 0 {
					t.Errorf("%v after %d records", tr.cmd.ProcessState,
						len(tr.records))
				}
				return
			}
			if len(tr.records) == 0 { // interrupted before it was ready: nothing to sum up
				if code := tr.cmd.ProcessState.ExitCode(); code != 130 ||
					tr.readErr != nil {
					t.Errorf("%v, %v; it said:\n%s", tr.cmd.ProcessState,
						tr.readErr, &tr.stderr)
				}
				return
			}
			tr.backend = tr.records[0].Backend
			tr.finish()
		})
	}
}

// hostile clears a terminal, breaks lines and JSON, and is no valid UTF-8.
const hostile = "ev\x1b[2J\n\"<b>\xff\xfe"

// TestHostileComm: a process name is anybody's to choose.
func TestHostileComm(t *testing.T) {
	w := newWorld(t)
	server := startServer(t, w, hostile, server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	tr := start(t, "--netns", w.Path())
	table, stderr := exec.Command(program, "trace", "--netns", w.Path(), "--count", "5",
		"--no-color"), bytes.Buffer{}
	table.Stderr = &stderr
	var text bytes.Buffer
	table.Stdout = &text
	must(t, table.Start())
	defer table.Process.Kill() //nolint:errcheck // it has ended if all went well
	ended := make(chan error, 1)
	go func() { ended <- table.Wait() }()
	// It has no ready record: lose SYNs until it has seen five.
	lost := 0
	for deadline := time.Now().Add(patience); ; {
		lost++
		loseSYNs(t, w, server4, 1)
		select {
		case err := <-ended:
			must(t, err)
		case <-time.After(50 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
			t.Fatalf("no five records in a table; it said:\n%s", &stderr)
		}
		break
	}
	a := tr.stop() // checks JSON and UTF-8
	drops := a.of(w.NetNS())
	if len(drops)+a.heldBack("suppressed", 0) != lost {
		t.Errorf("%d records, want %d", len(drops), lost)
	}
	for i, r := range drops {
		if !slices.Equal(r.pids(), []int{server.PID}) ||
			!strings.HasPrefix(r.Processes[0].Comm, "ev\x1b[2J\n\"<b>") {
			t.Errorf("record %d: %+v", i, r.Processes)
		}
	}
	for _, c := range text.String() {
		if c < ' ' && c != '\n' || c == 0x7f || c == '\ufffd' {
			t.Errorf("the table has %q in:\n%q", c, text.String())
			break
		}
	}
	if !strings.Contains(text.String(), "[2J") || strings.Contains(text.String(), "\n\"<b>") {
		t.Errorf("the table does not name the process, or not in one line:\n%q",
			text.String())
	}
}

// TestTwoAtOnce: two of them see the same, and neither disturbs the other.
func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t)
	server := startServer(t, w, "watched", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	first := start(t, "--netns", w.Path(), "--rate", "0")
	fill(t, w, server4, 3)
	loseSYNs(t, w, server4, 5)
	second := start(t, "--netns", w.Path(), "--rate", "0")
	loseSYNs(t, w, server4, 7)
	a := first.stop()
	loseSYNs(t, w, server4, 2)
	b := second.stop()
	a.wantOwner(w, 12, "watched", server.PID)
	b.wantOwner(w, 9, "watched", server.PID)
	a.wantRow(w.NetNS(), "ListenOverflows", 12, 0)
	b.wantRow(w.NetNS(), "ListenOverflows", 9, 0)
}

// TestListenerReplaced: a server that restarts between two drops is another.
func TestListenerReplaced(t *testing.T) {
	w := newWorld(t)
	tr := start(t, "--netns", w.Path(), "--rate", "0")
	var pids []int
	for i := range 5 {
		server := startServer(t, w, fmt.Sprintf("restart-%d", i),
			server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
		fill(t, w, server4, 3)
		loseSYNs(t, w, server4, 2)
		// Two SYNs, then the four that were queued when it closed.
		pids = append(pids, slices.Repeat([]int{server.PID}, 6)...)
		must(t, server.Close())
		must(t, w.Barrier(t.Context()))
	}
	a := tr.stop()
	var named []int
	for i, r := range a.of(w.NetNS()) {
		named = append(named, r.pids()...)
		if len(r.Processes) == 1 && r.Processes[0].Comm != fmt.Sprintf("restart-%d", i/6) {
			t.Errorf("record %d: %+v", i, r.Processes)
		}
	}
	if !slices.Equal(named, pids) {
		t.Errorf("processes %v, want %v", named, pids)
	}
	a.wantRow(w.NetNS(), "ListenOverflows", 10, 0)
}
