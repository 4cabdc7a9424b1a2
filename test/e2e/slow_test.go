// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// The article's case, in small: 20 ordinary clients connect over loopback, from
// two CPUs at once, to a listen(1) whose owner sleeps after each accept().
const (
	crowd       = 20
	slowPause   = 50 * time.Millisecond
	slowTimeout = 5 * time.Millisecond // a client's patience
	slowWindow  = time.Second
	slowRuns    = 20
)

func startSlowServer(t testing.TB, w *world.World, more ...server.ListenConfig) *server.Server {
	t.Helper()
	return startServer(t, w, "slow", append([]server.ListenConfig{
		{Addr: anyAddr(port), Backlog: 1, Accept: true, Pause: slowPause}}, more...)...)
}

// slowRun is one run: traffic for a while with a synspy of its own. It returns
// how many drops the kernel counted and how many stayed unattributed.
func slowRun(t *testing.T, args ...string) (drops, unattributed int) {
	t.Helper()
	w := newWorld(t)
	server := startSlowServer(t, w)
	before := counters(t, w)
	tr := start(t, append([]string{"--netns", w.Path()}, args...)...)
	h := startHerd(t, w, server4, crowd, slowTimeout)
	time.Sleep(slowWindow) // the length of the run, not a wait for something
	h.stop(t)
	cutLoopback(t, w)
	drops = moved(t, w, before, event.CounterListenOverflows)
	if drops < 100 {
		t.Fatalf("%d drops in %d connects: no flood", drops, h.tries.Load())
	}
	a := tr.stop()
	return drops, a.wantAll(w, server, before, 0)
}

// wantAll holds an account of a slow server against the kernel's counters, all
// of which stand still. filtered is what the filters must have kept out. It
// returns how many ListenOverflows stayed unattributed.
func (a *account) wantAll(w *world.World, server *server.Server, before map[event.Counter]uint64,
	filtered int) int {
	t := a.t
	t.Helper()
	netns := w.NetNS()
	var unattributed int
	for c := range event.NumCounters {
		n, out := moved(t, w, before, c), 0
		if c == event.CounterListenOverflows || c == event.CounterListenDrops {
			out = filtered
		}
		if r := a.wantRow(netns, c.String(), n, out); c == event.CounterListenOverflows {
			unattributed = r.Unattributed
		}
	}
	overflows := moved(t, w, before, event.CounterListenOverflows)
	told := 0
	for _, r := range a.of(netns) {
		if r.Cause != "accept_queue_full" {
			continue // RSTs of clients that gave up, and the like
		}
		told++
		if len(r.Processes) != 1 || r.Processes[0].PID != server.PID {
			t.Errorf("processes %+v, want %d alone", r.Processes, server.PID)
		}
		if r.Listener.endpoint != (endpoint{anyAddr(port).Addr(), port}) {
			t.Errorf("listener %+v", r.Listener)
		}
	}
	for _, r := range a.held {
		if r.Cause == "accept_queue_full" && r.Listener != nil &&
			r.Listener.NetNS == netns {
			told += r.Count
		}
	}
	told += a.unnamed(overflows)
	if told+unattributed != overflows-filtered {
		t.Errorf("records, suppressed and lost sum to %d, %d unattributed, %d filtered; ListenOverflows moved by %d",
			told, unattributed, filtered, overflows)
	}
	return unattributed
}

// unnamed returns how many of the accept queue's drops name no listener. Tracepoints name none for
// the first drop that a CPU sees of a listener when its queue has room again by then: as rare as
// what they leave unattributed.
func (a *account) unnamed(drops int) (n int) {
	a.t.Helper()
	for _, r := range slices.Concat(a.drops, a.held) {
		if r.Cause == "accept_queue_full" && r.Listener == nil {
			n += max(r.Count, 1) // a drop has no count
		}
	}
	if n > 0 {
		a.t.Logf("%d of %d drops name no listener", n, drops)
	}
	if n > a.bound(drops) {
		a.t.Errorf("%d of %d drops name no listener with backend %s", n, drops, a.backend)
	}
	return n
}

// TestSlowAccept runs the case many times in a row, and in company.
func TestSlowAccept(t *testing.T) {
	t.Run("runs", func(t *testing.T) {
		drops, unattributed := 0, 0
		runs := slowRuns
		if testing.Short() { // under emulation each start takes seconds
			runs /= 4
		}
		for i := range runs {
			args := []string{"--rate", "0"}
			if i%2 == 1 {
				args = nil // the default rate: most are suppressed, none are lost count of
			}
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				d, u := slowRun(t, args...)
				drops, unattributed = drops+d, unattributed+u
			})
		}
		t.Logf("%d drops in %d runs, %d unattributed", drops, runs, unattributed)
		if unattributed*1000 >= drops {
			t.Errorf("%d of %d unattributed: that is not under 1 in 1,000",
				unattributed, drops)
		}
	})
	t.Run("tcpdump", testSlowWithTcpdump)
	t.Run("second port", testSlowSecondPort)
	t.Run("interrupted", testSlowInterrupted)
}

// testSlowWithTcpdump runs it with a capture on all interfaces: clones of every
// packet are made, and freed by others.
func testSlowWithTcpdump(t *testing.T) {
	if without("tcpdump") {
		t.Skip("SYNSPY_E2E_WITHOUT says that there is no tcpdump here")
	}
	tcpdump, err := exec.LookPath("tcpdump")
	must(t, err)
	w := newWorld(t)
	server := startSlowServer(t, w)
	before := counters(t, w)
	capture := exec.Command(tcpdump, "-i", "any", "-n", "-Z", "root", "-w", "/dev/null")
	stderr, err := capture.StderrPipe()
	must(t, err)
	must(t, w.Do(capture.Start))
	var said strings.Builder
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "listening on") {
			break
		}
	}
	ended := make(chan struct{})
	go func() {
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
		}
		_ = capture.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = capture.Process.Kill()
		<-ended
	})

	tr := start(t, "--netns", w.Path(), "--rate", "0")
	h := startHerd(t, w, server4, crowd, slowTimeout)
	time.Sleep(slowWindow)
	h.stop(t)
	cutLoopback(t, w)
	a := tr.stop()
	must(t, capture.Process.Signal(syscall.SIGINT))
	<-ended
	var captured int
	for line := range strings.Lines(said.String()) {
		if number, ok := strings.CutSuffix(strings.TrimSpace(line),
			" packets captured"); ok {
			captured, err = strconv.Atoi(number)
			must(t, err)
		}
	}
	if captured == 0 {
		t.Errorf("tcpdump captured nothing; it said:\n%s", &said)
	}
	unattributed := a.wantAll(w, server, before, 0)
	t.Logf("%d drops, %d unattributed; tcpdump captured %d packets",
		moved(t, w, before, event.CounterListenOverflows),
		unattributed, captured)
}

// testSlowSecondPort floods a second listener of the same namespace meanwhile,
// and asks for the first one only. The second never accepts and its queue is
// full, so each of its SYNs is a drop that the filter must have counted.
func testSlowSecondPort(t *testing.T) {
	const second = port + 1
	w := newWorld(t)
	server := startSlowServer(t, w, server.ListenConfig{Addr: anyAddr(second), Backlog: 1})
	before := counters(t, w)
	tr := start(t, "--netns", w.Path(), "--rate", "0", "--port", fmt.Sprint(port))
	other := netip.AddrPortFrom(world.ServerAddr4, second)
	fill(t, w, other, 1)
	frames := w.SYNFrames(other, 50)
	h := startHerd(t, w, server4, crowd, slowTimeout)
	filtered := 0
	for end := time.Now().Add(slowWindow); time.Now().Before(end); {
		must(t, w.Inject(frames))
		filtered += len(frames)
	}
	h.stop(t)
	cutLoopback(t, w)
	a := tr.stop()
	unattributed := a.wantAll(w, server, before, filtered)
	for _, r := range append(a.drops, a.held...) {
		if r.Server != nil && r.Server.Port == second || r.Listener != nil &&
			r.Listener.Port == second {
			t.Errorf("a record of the port that was not asked for: %+v", r)
			break
		}
	}
	t.Logf("%d drops, %d of them filtered, %d unattributed",
		moved(t, w, before, event.CounterListenOverflows),
		filtered, unattributed)
}

// testSlowInterrupted ends the trace in the middle of the traffic.
func testSlowInterrupted(t *testing.T) {
	const times = 5
	w := newWorld(t)
	startSlowServer(t, w)
	h := startHerd(t, w, server4, crowd, slowTimeout)
	drops, unattributed := 0, 0
	var last *account
	for i := range times {
		tr := start(t, "--netns", w.Path(), "--rate", "0")
		tr.await("drops", func(records []record) bool { return len(records) > 50*(i+1) })
		a := tr.stop()
		last = a
		overflows, ok := a.row(w.NetNS(), event.CounterListenOverflows.String())
		if !ok || overflows.Kernel < 50*(i+1) {
			t.Errorf("ledger row %+v after %d records", overflows, len(a.drops))
		}
		if !a.summary.Balanced {
			t.Errorf("interrupted under traffic, the ledger does not balance: %+v",
				a.summary.Ledger)
		}
		told := 0
		for _, r := range append(a.drops, a.held...) {
			if r.Cause == "accept_queue_full" {
				told += max(r.Count, 1)
			}
		}
		if told != overflows.Synspy {
			t.Errorf("records, suppressed and lost sum to %d, the ledger has %d", told,
				overflows.Synspy)
		}
		drops, unattributed = drops+overflows.Kernel, unattributed+overflows.Unattributed
	}
	h.stop(t)
	if unattributed > last.bound(drops) {
		t.Errorf("%d of %d unattributed", unattributed, drops)
	}
	t.Logf("%d drops in %d interrupted traces, %d unattributed", drops, times, unattributed)
}
