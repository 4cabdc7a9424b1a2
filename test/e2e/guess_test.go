// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// queues is a listener's state when a SYN arrives: all that a tool which looks
// at entry has to go by.
type queues struct {
	accept, syn, limit int
	established        int
	listening          bool
}

// queuesOf reads it from the namespace's /proc/net/tcp; of a group, what waits for all members.
func queuesOf(t testing.TB, w *world.World, port, limit int) queues {
	t.Helper()
	q := queues{limit: limit}
	must(t, w.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/tcp")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			// number, local and remote address, state, queues
			f := strings.Fields(line)
			if len(f) < 5 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			switch f[3] {
			case "0A": // TCP_LISTEN: its receive queue is the accept queue
				_, hex, _ := strings.Cut(f[4], ":")
				n, err := strconv.ParseUint(hex, 16, 32)
				if err != nil {
					return err
				}
				q.accept, q.listening = q.accept+int(n), true
			case "01": // TCP_ESTABLISHED
				q.established++
			case "03": // TCP_SYN_RECV
				q.syn++
			}
		}
		return nil
	}))
	return q
}

// The guesses of tools that look at the queues when a SYN arrives.
type guesser struct {
	name  string
	guess func(queues) (cause string)
}

var guessers = []guesser{
	{"SYN queue full means dropped", func(q queues) string {
		switch {
		case q.accept > q.limit:
			return "accept_queue_full"
		case q.syn >= q.limit:
			return "syn_queue_full"
		}
		return ""
	}},
	{"full at its limit", func(q queues) string {
		if q.accept >= q.limit {
			return "accept_queue_full"
		}
		return ""
	}},
}

// TestEntryStateGuessFails plays SYNs one by one and lets each guesser say
// beforehand what will become of each. The wire says what did. Every guesser
// must be wrong somewhere, or this test has lost its point; synspy nowhere.
func TestEntryStateGuessFails(t *testing.T) {
	for _, tt := range []struct {
		name    string
		backlog int
		filled  int // completed handshakes beforehand
		syns    int
		fooled  string // who must be wrong here
		cookies bool   // some SYNs must be answered by cookies
		drops   int
	}{
		{name: "SYN queue full, answered by cookies", backlog: 8, syns: 20,
			fooled: guessers[0].name, cookies: true},
		{name: "accept queue exactly at its limit", backlog: 3, filled: 3, syns: 2,
			fooled: guessers[1].name},
		{name: "accept queue one above its limit", backlog: 3, filled: 4, syns: 3,
			drops: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			server := startServer(t, w, "guessed",
				server.ListenConfig{Addr: anyAddr(port), Backlog: tt.backlog})
			tr := start(t, "--netns", w.Path(), "--rate", "0", "--cookies")
			must(t, w.Handshakes(t.Context(), server4, tt.filled))

			guesses := make(map[string]map[netip.AddrPort]string)
			for _, g := range guessers {
				guesses[g.name] = make(map[netip.AddrPort]string)
			}
			truth := make(map[netip.AddrPort]string)
			var cookies []netip.AddrPort
			for range tt.syns {
				q := queuesOf(t, w, port, tt.backlog)
				clients, err := w.Burst(t.Context(), server4, 1)
				must(t, err)
				c := clients[0]
				for _, g := range guessers {
					if cause := g.guess(q); cause != "" {
						guesses[g.name][c.Local] = cause
					}
				}
				switch {
				case !c.Answered():
					truth[c.Local] = "accept_queue_full"
				case c.Cookie():
					cookies = append(cookies, c.Local)
				}
			}
			if len(truth) != tt.drops || (len(cookies) > 0) != tt.cookies {
				t.Fatalf("%d drops and %d cookies: the scenario is not what it should be", len(truth), len(cookies))
			}
			a := tr.stop()

			said := make(map[netip.AddrPort]string)
			for _, r := range a.drops {
				said[r.client()] = r.Cause
				if !slices.Equal(r.pids(), []int{server.PID}) {
					t.Errorf("processes %+v", r.Processes)
				}
			}
			if !sameMap(said, truth) || len(a.drops) != tt.drops {
				t.Errorf("synspy: %v, truth: %v", said, truth)
			}
			if got := clientsOf(a.cookies); !slices.Equal(got, cookies) {
				t.Errorf("cookies to %v, want %v", got, cookies)
			}
			for _, g := range guessers {
				if right := sameMap(guesses[g.name],
					truth); right == (g.name == tt.fooled) {
					t.Errorf("guesser %q: right is %v; it says %v, truth: %v",
						g.name, right, guesses[g.name], truth)
				}
			}
			a.wantRow(w.NetNS(), "ListenOverflows", tt.drops, 0)
			a.wantRow(w.NetNS(), "ListenDrops", tt.drops, 0)
			a.wantRow(w.NetNS(), "SyncookiesSent", len(cookies), 0)
		})
	}
}

func sameMap(a, b map[netip.AddrPort]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// TestCurrentAttributionFails asks the kernel who `current` is while SYNs die:
// this test, which writes them to the TUN device. synspy must name the server.
func TestCurrentAttributionFails(t *testing.T) {
	const drops = 20
	w := newWorld(t)
	server := startServer(t, w, "innocent",
		server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	tr := start(t, "--netns", w.Path(), "--rate", "0")
	current := watchCurrent(t)
	loseSYNs(t, w, server4, drops)
	hits := current()
	a := tr.stop()

	self := os.Getpid()
	if hits[self] < drops {
		t.Fatalf("current was this process %d times during %d drops (%v): the test has lost its point", hits[self], drops, hits)
	}
	if len(a.drops) != drops {
		t.Errorf("%d records, want %d", len(a.drops), drops)
	}
	for i, r := range a.drops {
		if !slices.Equal(r.pids(), []int{server.PID}) || r.Processes[0].Comm != "innocent" {
			t.Errorf("record %d names %+v, want %d alone; this test is %d", i,
				r.Processes, server.PID, self)
		}
	}
}

// watchCurrent counts, per process, how often a SYN was consumed while it was
// current: what a tool that asks bpf_get_current_pid_tgid would say. Whoever is
// interrupted on the machine meanwhile is counted too.
func watchCurrent(t testing.TB) func() map[int]int {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8,
		MaxEntries: 4096})
	must(t, err)
	t.Cleanup(func() { counts.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.FnGetCurrentPidTgid.Call(),
			asm.RSh.Imm(asm.R0, 32),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -8),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "first"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.Ja.Label("end"),
			asm.Mov.Imm(asm.R1, 1).WithSymbol("first"),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -8),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -16),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnMapUpdateElem.Call(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
			asm.Return(),
		},
	})
	must(t, err)
	defer program.Close()
	attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "consume_skb",
		Program: program})
	must(t, err)
	t.Cleanup(func() { attached.Close() })
	return func() map[int]int {
		t.Helper()
		must(t, attached.Close())
		hits := make(map[int]int)
		var pid, n uint64
		entries := counts.Iterate()
		for entries.Next(&pid, &n) {
			hits[int(pid)] = int(n)
		}
		must(t, entries.Err())
		return hits
	}
}
