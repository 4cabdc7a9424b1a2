// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/world"
)

// TestAccept: of the processes that hold a listener, who accepts from it.
func TestAccept(t *testing.T) {
	t.Run("before the start", func(t *testing.T) { testAccept(t, false) })
	t.Run("after the start", func(t *testing.T) { testAccept(t, true) })
}

// testAccept has the first of two workers accept, all of a sudden out of a sleep in
// accept(), and one in its place inherit what was accepted.
func testAccept(t *testing.T, late bool) {
	const backlog, accepts = 3, 2
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "prefork", First: port, Count: 1,
		Backlog: backlog, Workers: 2, Accept: accepts})
	var tr *tracer
	if late {
		tr = start(t, "--netns", w.Path())
	}
	began := time.Now()
	must(t, w.Handshakes(t.Context(), server4, accepts))
	holders := awaitHolders(t, h.pid, "prefork", 4)
	if !late {
		tr = start(t, "--netns", w.Path())
	}
	fill(t, w, server4, backlog)
	dropUntilNamed(t, w, tr, len(holders))
	a := tr.stop()
	took := int(time.Since(began).Milliseconds())
	timed := late && a.backend != "tracepoint"

	records := a.of(w.NetNS())
	last := records[len(records)-1]
	if got := last.pids(); !sameList(got, holders, func(a, b int) int { return a - b }) {
		t.Errorf("processes %+v, want %v", last.Processes, holders)
	}
	for _, p := range last.Processes {
		role := "holder"
		if p.PID == h.workers[0] {
			role = "acceptor"
		}
		if p.Role != role || !strings.HasPrefix(p.Comm, "prefork") {
			t.Errorf("%+v, want role %s", p, role)
		}
		if at := p.LastAcceptMs; (at != nil) != (timed && role == "acceptor") ||
			at != nil && (*at < 0 || *at > took) {
			t.Errorf("process %d accepted last %v ms before, of %d", p.PID, deref(at),
				took)
		}
	}
	if last.Processes[0].PID != h.workers[0] {
		t.Errorf("the acceptor %d is not the first of %+v", h.workers[0], last.Processes)
	}
	i := slices.IndexFunc(a.summary.Seen, func(s seen) bool {
		return s.Listener.NetNS == w.NetNS()
	})
	if i < 0 || a.summary.Seen[i].Accepting == nil {
		t.Fatalf("no accept side in the summary: %+v", a.summary.Seen)
	}
	s := a.summary.Seen[i].Accepting
	want := 0
	if late {
		want = accepts
	}
	wantAccepting(t, s, want+backlog+1, want, backlog+1)
	waits := 0
	for _, b := range s.Waits {
		waits += b.Count
	}
	if timed {
		if s.Proof != "return" || waits != accepts || s.WaitedUs == nil ||
			s.LongestGapMs == nil || *s.LongestGapMs > took ||
			s.LastAcceptMs == nil || *s.LastAcceptMs > took {
			t.Errorf("accept side %+v: want %d waits of at most %d ms", s, accepts,
				took)
		}
	} else if waits != 0 || s.LongestGapMs != nil || s.LastAcceptMs != nil {
		t.Errorf("accept side %+v: no accept could be seen", s)
	}
}

// dropUntilNamed loses SYNs until a record names so many processes. The first may come
// before the processes were read again: they wait for that, but not for long.
func dropUntilNamed(t *testing.T, w *world.World, tr *tracer, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for lost := 1; time.Now().Before(deadline); lost++ {
		var last record
		loseSYNs(t, w, server4, 1)
		tr.await("record of the SYN", func(records []record) bool {
			last = records[len(records)-1]
			return len(records) > lost
		})
		if len(last.Processes) == n {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("no record names %d processes", n)
}

// wantAccepting checks the counts, which are exact with every backend.
func wantAccepting(t *testing.T, s *accepting, arrivals, accepts, queued int) {
	t.Helper()
	if s.Arrivals != arrivals || s.Accepts == nil || *s.Accepts != accepts ||
		s.AcceptQueueMax == nil || *s.AcceptQueueMax != queued {
		t.Errorf("accept side: %d arrivals, %v accepts, at most %v queued; want %d, %d, %d",
			s.Arrivals, deref(s.Accepts), deref(s.AcceptQueueMax), arrivals, accepts, queued)
	}
}

func deref(p *int) any {
	if p == nil {
		return "no"
	}
	return *p
}

// awaitHolders waits until so many processes of a name have the listener of one open,
// and lists them, as /proc has it.
func awaitHolders(t *testing.T, pid int, name string, n int) []int {
	t.Helper()
	var pids []int
	inode := listenerInode(t, pid)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		pids = pids[:0]
		entries, err := os.ReadDir("/proc")
		must(t, err)
		for _, e := range entries {
			other, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			comm, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
			if inodes, err := readSockets(other); err == nil &&
				slices.Contains(inodes, inode) &&
				strings.HasPrefix(string(comm), name) { // else it is gone, or not there yet
				pids = append(pids, other)
			}
		}
		if len(pids) == n {
			return pids
		}
		if time.Now().After(deadline) {
			t.Fatalf("the listener is held by %v, want %d processes", pids, n)
		}
	}
}

// listenerInode is the only socket of a process of the lab's helpers.
func listenerInode(t *testing.T, pid int) uint64 {
	t.Helper()
	inodes := socketsOf(t, pid)
	if len(inodes) != 1 {
		t.Fatalf("process %d has sockets %v, want one", pid, inodes)
	}
	return inodes[0]
}
