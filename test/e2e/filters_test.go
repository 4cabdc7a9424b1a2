// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// fate is one packet that died, as the wire told.
type fate struct {
	client netip.AddrPort
	port   uint16 // the server's
	cause  string
	stage  string
}

func compareFates(a, b fate) int {
	return cmp.Or(a.client.Compare(b.client), cmp.Compare(a.port, b.port),
		cmp.Compare(a.cause, b.cause),
		cmp.Compare(a.stage, b.stage))
}

// market is a namespace with three servers whose packets die in several ways.
type market struct {
	w                *world.World
	web, db, mail    *server.Server // ports 8080 (also IPv6), 8081, 8082
	webGroup, dbPath string         // cgroups
	truth            []fate
}

const (
	portWeb  = port
	portDB   = port + 1
	portMail = port + 2
)

func newMarket(t *testing.T) *market {
	t.Helper()
	m := &market{}
	var webDir, dbDir string
	m.webGroup, webDir = newCgroup(t, "web.slice")
	m.dbPath, dbDir = newCgroup(t, "db.slice")
	m.w = newWorld(t)
	m.web = startServer(t, m.w, "web-front",
		server.ListenConfig{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), portWeb),
			Backlog: 3})
	m.db = startServer(t, m.w, "db[1]", server.ListenConfig{Addr: anyAddr(portDB), Backlog: 1})
	m.mail = startServer(t, m.w, "web-mail",
		server.ListenConfig{Addr: anyAddr(portMail), Backlog: 8})
	moveTo(t, webDir, m.web.PID)
	moveTo(t, dbDir, m.db.PID)
	return m
}

// play lets packets of all servers die and notes each one's fate.
func (m *market) play(t *testing.T) {
	t.Helper()
	lose := func(clients []*world.Client, port uint16, cause, stage string) {
		for _, c := range clients {
			m.truth = append(m.truth, fate{c.Local, port, cause, stage})
		}
	}
	must(t, m.w.Sysctl("net.ipv4.tcp_max_syn_backlog", "4096"))
	must(t, m.w.Sysctl("net.ipv4.tcp_syncookies", "0"))
	clients, err := m.w.Burst(t.Context(), netip.AddrPortFrom(world.ServerAddr4, portMail), 20)
	must(t, err)
	clients = slices.DeleteFunc(clients, (*world.Client).Answered)
	if len(clients) < 5 {
		t.Fatalf("%d of 20 SYNs died in the full SYN queue", len(clients))
	}
	lose(clients, portMail, "syn_queue_full", "syn")
	must(t, m.w.Sysctl("net.ipv4.tcp_syncookies", "1"))

	acks, syns := overflowAtAck(t, m.w, server4)
	lose(acks, portWeb, "accept_queue_full", "ack")
	lose(syns, portWeb, "accept_queue_full", "syn")
	lose(loseSYNs(t, m.w, server6, 2), portWeb, "accept_queue_full", "syn")

	db := netip.AddrPortFrom(world.ServerAddr4, portDB)
	fill(t, m.w, db, 1)
	lose(loseSYNs(t, m.w, db, 3), portDB, "accept_queue_full", "syn")
}

// TestFilters: each filter lets through exactly what it names, counts what it
// kept out, and leaves the ledger whole.
func TestFilters(t *testing.T) {
	all := func(fate) bool { return true }
	onPort := func(ports ...uint16) func(fate) bool {
		return func(f fate) bool { return slices.Contains(ports, f.port) }
	}
	// Clients are numbered in the order that play makes them: 20 for mail, so
	// this address belongs to one of the five lost SYNs to web.
	const oneClient = "10.99.0.33"

	for _, tt := range []struct {
		name string
		args func(*market) []string
		keep func(fate) bool
	}{
		{"none", func(*market) []string { return nil }, all},
		{"port", func(*market) []string {
			return []string{"--port", "8081"}
		}, onPort(portDB)},
		{"port range", func(*market) []string {
			return []string{"--port", "1-80,8081-8082"}
		}, onPort(portDB, portMail)},
		{"addr", func(*market) []string { return []string{"--addr", "fd99::/64"} },
			func(f fate) bool { return f.client.Addr().Is6() }},
		{"addr IPv4", func(*market) []string {
			return []string{"--addr", world.ServerAddr4.String()}
		},
			func(f fate) bool { return f.client.Addr().Is4() }},
		{"client", func(*market) []string { return []string{"--client", oneClient} },
			func(f fate) bool {
				return f.client.Addr() == netip.MustParseAddr(oneClient)
			}},
		{"cause", func(*market) []string { return []string{"--cause", "syn_queue_full"} },
			func(f fate) bool { return f.cause == "syn_queue_full" }},
		{"stage", func(*market) []string { return []string{"--stage", "ack"} },
			func(f fate) bool { return f.stage == "ack" }},
		{"pid", func(m *market) []string {
			return []string{"--pid", fmt.Sprint(m.db.PID)}
		}, onPort(portDB)},
		{"comm", func(*market) []string {
			return []string{"--comm", "db[1]"}
		}, onPort(portDB)},
		{"comm glob", func(*market) []string {
			return []string{"--comm", "web-*"}
		}, onPort(portWeb, portMail)},
		{"comm of nobody", func(*market) []string {
			return []string{"--comm", "nobody*"}
		}, onPort()},
		{"cgroup", func(m *market) []string {
			return []string{"--cgroup", m.webGroup}
		}, onPort(portWeb)},
		{"cgroup glob", func(*market) []string {
			return []string{"--cgroup", "/synspy-e2e-*/db.*"}
		}, onPort(portDB)},
		{"cgroup above", func(*market) []string {
			return []string{"--cgroup", fmt.Sprintf("/synspy-e2e-%d", os.Getpid())}
		},
			onPort(portWeb, portDB)},
		{"two at once", func(*market) []string {
			return []string{"--comm", "web-*", "--stage", "syn", "--cause",
				"accept_queue_full"}
		},
			func(f fate) bool { return f.port == portWeb && f.stage == "syn" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMarket(t)
			tr := start(t, append([]string{"--netns", m.w.Path(), "--rate", "0"},
				tt.args(m)...)...)
			before := counters(t, m.w)
			m.play(t)
			if !slices.ContainsFunc(m.truth, tt.keep) && tt.name != "comm of nobody" {
				t.Fatal("the filter lets nothing through: the scenario is not what it should be")
			}
			a := tr.stop()
			m.want(t, a, tt.keep)
			// What the kernel counted is all in the ledger, filter or not.
			for c, n := range counters(t, m.w) {
				if r, _ := a.row(m.w.NetNS(),
					c.String()); r.Kernel != int(n-before[c]) {
					t.Errorf("%s: the kernel moved it by %d, the ledger has %+v", c, n-before[c], r)
				}
			}
		})
	}
}

// want holds the account against the truth.
func (m *market) want(t *testing.T, a *account, keep func(fate) bool) {
	t.Helper()
	moved, filtered := map[string]int{}, map[string]int{}
	var want, got []fate
	for _, f := range m.truth {
		names := []string{"ListenDrops", "ListenOverflows"}
		if f.cause == "syn_queue_full" {
			names[1] = "TCPReqQFullDrop"
		}
		for _, name := range names {
			moved[name]++
			if !keep(f) {
				filtered[name]++
			}
		}
		if keep(f) {
			want = append(want, f)
		}
	}
	for _, r := range a.of(m.w.NetNS()) {
		got = append(got, fate{r.client(), r.Listener.Port, r.Cause, r.Stage})
		pid := map[uint16]int{portWeb: m.web.PID, portDB: m.db.PID,
			portMail: m.mail.PID}[r.Listener.Port]
		if !slices.Equal(r.pids(), []int{pid}) {
			t.Errorf("processes %+v of port %d, want %d", r.Processes, r.Listener.Port,
				pid)
		}
	}
	if !sameList(want, got, compareFates) {
		t.Errorf("records:\n%v\nwant:\n%v", got, want)
	}
	for name, n := range moved {
		a.wantRow(m.w.NetNS(), name, n, filtered[name])
	}
	sum := 0
	for _, c := range a.summary.Counts {
		sum += c.Count
	}
	if sum != len(want) {
		t.Errorf("counts %+v, want %d in all", a.summary.Counts, len(want))
	}
}

// TestNetNSFilter: the only filter that narrows the ledger.
func TestNetNSFilter(t *testing.T) {
	for _, by := range []string{"path", "inode", "PID"} {
		t.Run(by, func(t *testing.T) {
			w, other := newWorld(t), newWorld(t)
			s := startServer(t, w, "asked-for",
				server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
			startServer(t, other, "not-asked-for",
				server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
			fill(t, w, server4, 3)
			fill(t, other, server4, 3)
			tr := start(t, "--netns", map[string]string{
				"path": w.Path(), "inode": fmt.Sprint(w.NetNS()),
				"PID": fmt.Sprint(s.PID),
			}[by])
			loseSYNs(t, w, server4, 5)
			loseSYNs(t, other, server4, 7)
			a := tr.stop()
			a.wantOwner(w, 5, "asked-for", s.PID)
			if len(a.drops) != 5 {
				t.Errorf("%d records, want 5", len(a.drops))
			}
			a.wantRow(w.NetNS(), "ListenDrops", 5, 0)
			for _, r := range a.summary.Ledger {
				if r.NetNS != w.NetNS() {
					t.Errorf("the ledger has a row of another namespace: %+v",
						r)
				}
			}
		})
	}
}

// TestFilterLate: a process filter that nothing matches yet says so and waits.
func TestFilterLate(t *testing.T) {
	w := newWorld(t)
	early := startServer(t, w, "early", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	tr := start(t, "--netns", w.Path(), "--comm", "late*")
	loseSYNs(t, w, server4, 2)
	late := startServer(t, w, "late-one",
		server.ListenConfig{Addr: anyAddr(portDB), Backlog: 3})
	to := netip.AddrPortFrom(world.ServerAddr4, portDB)
	fill(t, w, to, 3)
	loseSYNs(t, w, to, 3)
	loseSYNs(t, w, server4, 2)
	a := tr.stop()
	a.wantOwner(w, 3, "late-one", late.PID)
	a.wantRow(w.NetNS(), "ListenOverflows", 7, 4)
	for _, r := range a.held {
		t.Errorf("held back: %+v", r)
	}
	if early.PID == late.PID {
		t.Fatal("one process")
	}
}

// TestFilterInherited: a listener is also its heirs'. Neither fork nor a socket
// passed to another process leaves an event that could be watched.
func TestFilterInherited(t *testing.T) {
	config := helperConfig{Comm: "prefork", First: port, Count: 1, Backlog: 3, Workers: 2}
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late %v", late), func(t *testing.T) {
			w := newWorld(t)
			var h helper
			if !late {
				h = startHelper(t, w, config)
			}
			tr := start(t, "--netns", w.Path(), "--comm", "prefork-1")
			if late {
				h = startHelper(t, w, config)
			}
			fill(t, w, server4, 3)
			loseSYNs(t, w, server4, 3)
			if late { // found at the latest when holders are read again
				time.Sleep(1500 * time.Millisecond)
				loseSYNs(t, w, server4, 3)
			}
			a := tr.stop()
			if late {
				drops := a.of(w.NetNS())
				if len(drops) < 3 {
					t.Errorf("%d records, want at least the 3 of the last second", len(drops))
				}
				a.wantRow(w.NetNS(), "ListenOverflows", 6, 6-len(drops))
				return
			}
			a.wantOwner(w, 3, "prefork", append([]int{h.pid}, h.workers...)...)
			a.wantRow(w.NetNS(), "ListenOverflows", 3, 0)
		})
	}
}

// TestFilterOwnerLeaves: what was shown while a process held the listener stays
// counted as shown when it no longer does.
func TestFilterOwnerLeaves(t *testing.T) {
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "prefork", First: port, Count: 1, Backlog: 3,
		Workers: 1})
	tr := start(t, "--netns", w.Path(), "--comm", "prefork-0", "--rate", "2")
	fill(t, w, server4, 3)
	loseSYNs(t, w, server4, 5)
	tr.await("two records and what was suppressed", func(records []record) bool {
		return len(records) >= 4
	})
	worker, err := os.FindProcess(h.workers[0])
	must(t, err)
	must(t, worker.Kill())
	for deadline := time.Now().Add(patience); len(socketsOf(t, h.workers[0])) > 0; { // a zombie has none
		if time.Now().After(deadline) {
			t.Fatal("the worker lives on")
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(1500 * time.Millisecond) // holders are read again
	loseSYNs(t, w, server4, 4)
	a := tr.stop()
	drops, suppressed := len(a.of(w.NetNS())), a.heldBack("suppressed", w.NetNS())
	if drops+suppressed != 5 {
		t.Errorf("%d records and %d suppressed, want 5 in all", drops, suppressed)
	}
	a.wantRow(w.NetNS(), "ListenOverflows", 9, 4)
}
