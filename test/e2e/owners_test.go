// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// socketsOf lists the inodes of a process's open sockets.
func socketsOf(t testing.TB, pid int) (inodes []uint64) {
	t.Helper()
	inodes, err := readSockets(pid)
	must(t, err)
	return inodes
}

func readSockets(pid int) (inodes []uint64, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		var inode uint64
		if to, err := os.Readlink(dir + "/" + f.Name()); err == nil {
			if _, err := fmt.Sscanf(to, "socket:[%d]", &inode); err == nil {
				inodes = append(inodes, inode)
			}
		}
	}
	return inodes, nil
}

// wantOwner checks that each of n drops of the namespace names exactly these
// processes, and the listener's own inode.
func (a *account) wantOwner(w *world.World, n int, comm string, pids ...int) []record {
	t := a.t
	t.Helper()
	drops := a.of(w.NetNS())
	if len(drops) != n {
		t.Errorf("%d records of %s, want %d", len(drops), comm, n)
	}
	for i, r := range drops {
		if got := r.pids(); !sameList(got, pids, func(a, b int) int { return a - b }) {
			t.Errorf("record %d: processes %+v, want %v", i, r.Processes, pids)
			continue
		}
		for _, p := range r.Processes {
			if !strings.HasPrefix(p.Comm, comm) {
				t.Errorf("record %d: process %+v, want %s", i, p, comm)
			}
		}
		if !slices.Contains(socketsOf(t, pids[0]), r.Listener.Inode) {
			t.Errorf("record %d: inode %d is no socket of process %d", i,
				r.Listener.Inode, pids[0])
		}
	}
	return drops
}

// TestOwners: who is named for a listener.
func TestOwners(t *testing.T) {
	t.Run("before the start", func(t *testing.T) {
		w := newWorld(t)
		server := startServer(t, w, "early",
			server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
		fill(t, w, server4, 3)
		tr := start(t, "--netns", w.Path())
		loseSYNs(t, w, server4, 1) // the very first record
		a := tr.stop()
		a.wantOwner(w, 1, "early", server.PID)
		if strings.Contains(a.stderr, "no listener matches") {
			t.Errorf("it says on standard error:\n%s", a.stderr)
		}
	})
	t.Run("after the start", func(t *testing.T) {
		w := newWorld(t)
		tr := start(t, "--netns", w.Path())
		server := startServer(t, w, "late",
			server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
		fill(t, w, server4, 3)
		loseSYNs(t, w, server4, 5)
		a := tr.stop()
		for i, r := range a.wantOwner(w, 5, "late", server.PID) {
			if len(r.Processes) > 0 && r.Processes[0].Role != "listener" {
				t.Errorf("record %d: role %s of the process that called listen()",
					i, r.Processes[0].Role)
			}
		}
		a.wantRow(w.NetNS(), "ListenDrops", 5, 0)
		if !strings.Contains(a.stderr, "no listener matches") {
			t.Errorf("nothing listened, and it says on standard error:\n%s", a.stderr)
		}
	})
	t.Run("equal ports in two namespaces", func(t *testing.T) {
		a, b := newWorld(t), newWorld(t)
		inA := startServer(t, a, "in-a",
			server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
		inB := startServer(t, b, "in-b",
			server.ListenConfig{Addr: anyAddr(port), Backlog: 1})
		fill(t, a, server4, 3)
		fill(t, b, server4, 1)
		tr := start(t)
		for range 4 { // alternating, with the same clients' addresses
			loseSYNs(t, a, server4, 1)
			loseSYNs(t, b, server4, 2)
		}
		account := tr.stop()
		account.wantOwner(a, 4, "in-a", inA.PID)
		account.wantOwner(b, 8, "in-b", inB.PID)
		account.wantRow(a.NetNS(), "ListenOverflows", 4, 0)
		account.wantRow(b.NetNS(), "ListenOverflows", 8, 0)
	})
	t.Run("prefork", func(t *testing.T) { testPrefork(t, false) })
	t.Run("prefork after the start", func(t *testing.T) { testPrefork(t, true) })
	t.Run("SO_REUSEPORT, one full", testReuseportOne)
	t.Run("SO_REUSEPORT, all full", testReuseportAll)
}

// testPrefork: children that inherit a listener hold it too.
func testPrefork(t *testing.T, late bool) {
	w := newWorld(t)
	config := helperConfig{Comm: "prefork", First: port, Count: 1, Backlog: 3, Workers: 2}
	var h helper
	var tr *tracer
	if late {
		tr = start(t, "--netns", w.Path())
		h = startHelper(t, w, config)
	} else {
		h = startHelper(t, w, config)
		tr = start(t, "--netns", w.Path())
	}
	fill(t, w, server4, 3)
	loseSYNs(t, w, server4, 3)
	a := tr.stop()
	for i, r := range a.wantOwner(w, 3, "prefork", append([]int{h.pid}, h.workers...)...) {
		for _, p := range r.Processes {
			// Only listen() after the start has been seen.
			want := "holder"
			if late && p.PID == h.pid {
				want = "listener"
			}
			if p.Role != want {
				t.Errorf("record %d: %+v, want role %s", i, p, want)
			}
		}
	}
}

func reuseport(backlog int, accept bool) server.ListenConfig {
	return server.ListenConfig{Addr: anyAddr(port), Backlog: backlog, ReusePort: true,
		Accept: accept}
}

// loseSome connects clients until some of them met a full member, and returns
// how many did.
func loseSome(t testing.TB, w *world.World, want int) (lost int) {
	t.Helper()
	return loseBetween(t, w, want, func() {})
}

// loseBetween does so, and calls connected after each client that met a member with room.
func loseBetween(t testing.TB, w *world.World, want int, connected func()) (lost int) {
	t.Helper()
	for range 2000 {
		clients, err := w.Burst(t.Context(), server4, 1)
		must(t, err)
		if clients[0].Answered() {
			must(t, clients[0].ACK())
			connected()
		} else if lost++; lost == want {
			return lost
		}
	}
	t.Fatalf("2000 clients, and %d met the full member", lost)
	return lost
}

// testReuseportOne: only the member whose queue is full is named, and filters
// on the process tell the members apart.
func testReuseportOne(t *testing.T) {
	for _, filter := range []string{"", "stuck", "healthy"} {
		t.Run("filter "+filter, func(t *testing.T) {
			w := newWorld(t)
			stuck := startServer(t, w, "member-stuck", reuseport(3, false))
			healthy := startServer(t, w, "member-healthy", reuseport(512, true))
			args := []string{"--netns", w.Path(), "--rate", "0"}
			want, filtered := 5, 0
			switch filter {
			case "stuck":
				args = append(args, "--pid", fmt.Sprint(stuck.PID))
			case "healthy":
				args = append(args, "--pid", fmt.Sprint(healthy.PID))
				want, filtered = 0, 5
			}
			tr := start(t, args...)
			sent := 5
			loseBetween(t, w, 5, func() { sent++ })
			a := tr.stop()
			a.wantRow(w.NetNS(), "ListenOverflows", 5, filtered)
			if a.backend == "tracepoint" { // it does not see which member a SYN came to
				if s := a.summary.Seen; len(s) != 1 || s[0].Listener.Inode != 0 ||
					s[0].Syn != sent {
					t.Errorf("%d SYNs to the group, seen %+v", sent, s)
				}
			}
			for i, r := range a.wantOwner(w, want, "member-stuck", stuck.PID) {
				if r.Listener.Reuseport == nil ||
					r.Listener.Reuseport.Members != 2 ||
					r.Listener.Reuseport.Full != 1 {
					t.Errorf("record %d: reuseport %+v, want 1 of 2 full", i,
						r.Listener.Reuseport)
				}
			}
		})
	}
}

// testReuseportAll: with all members full, the kernel's own socket is named
// where the kernel hands it over; tracepoints say that they don't know.
func testReuseportAll(t *testing.T) {
	w := newWorld(t)
	members := map[int]*server.Server{}
	for _, name := range []string{"member-a", "member-b"} {
		s := startServer(t, w, name, reuseport(3, false))
		members[s.PID] = s
	}
	for range 2000 { // until both are full: 8 connections in all
		clients, err := w.Burst(t.Context(), server4, 1)
		must(t, err)
		if clients[0].Answered() {
			must(t, clients[0].ACK())
		}
		if queuesOf(t, w, port, 0).established == 8 {
			break
		}
	}
	before := counters(t, w)
	tr := start(t, "--netns", w.Path(), "--rate", "0")
	loseSYNs(t, w, server4, 40)
	a := tr.stop()
	for c, n := range counters(t, w) {
		a.wantRow(w.NetNS(), c.String(), int(n-before[c]), 0)
	}
	pids := slices.Sorted(maps.Keys(members))
	drops := a.of(w.NetNS())
	if len(drops) != 40 {
		t.Errorf("%d records, want 40", len(drops))
	}
	named := map[int]int{}
	for i, r := range drops {
		if r.Listener.Reuseport == nil || r.Listener.Reuseport.Members != 2 ||
			r.Listener.Reuseport.Full != 2 {
			t.Errorf("record %d: reuseport %+v, want 2 of 2 full", i,
				r.Listener.Reuseport)
		}
		if a.backend == "tracepoint" {
			got := r.pids()
			slices.Sort(got)
			if r.Listener.Inode != 0 || r.Listener.Cookie != "" ||
				r.Listener.Proof != "state" || !slices.Equal(got, pids) {
				t.Errorf("record %d: listener %+v of %+v, want the group of %v", i,
					r.Listener, r.Processes, pids)
			}
			continue
		}
		if len(r.Processes) != 1 || members[r.Processes[0].PID] == nil ||
			!slices.Contains(socketsOf(t, r.Processes[0].PID), r.Listener.Inode) ||
			r.Listener.Proof != "socket" {
			t.Errorf("record %d: listener %+v of %+v, want one of %v", i, r.Listener,
				r.Processes, pids)
			continue
		}
		named[r.Processes[0].PID]++
	}
	if a.backend != "tracepoint" && len(named) != 2 {
		t.Errorf("40 clients met only %v", named)
	}
}
