// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/test/schema"
)

// listing is a record of synspy listeners.
type listing struct {
	V        int
	Type     string
	Time     time.Time
	Listener listener
	Backlog  *struct {
		Limit     uint32
		Somaxconn *uint32
		By        string
	}
	Drops *struct {
		Count       uint64
		Approximate bool
	}
	Processes []struct {
		PID     int
		Threads []thread
	}
	MPTCP    bool
	Rates    *struct{ SYNs *float64 }
	Warnings []struct {
		ID, Text string
		Evidence []string
	}
}

func (l *listing) warned(id string) bool {
	for _, w := range l.Warnings {
		if w.ID == id && w.Text != "" && len(w.Evidence) > 0 {
			return true
		}
	}
	return false
}

// list runs synspy listeners in JSON.
func list(t testing.TB, wantCode int, args ...string) (all []listing) {
	t.Helper()
	out, _, _ := runProgram(t, wantCode,
		append([]string{"listeners", "-o", "json"}, args...)...)
	return listings(t, out)
}

func listings(t testing.TB, out string) (all []listing) {
	t.Helper()
	for line := range strings.Lines(out) {
		var l listing
		must(t, json.Unmarshal([]byte(line), &l))
		if len(all) < 100 { // thousands are alike
			must(t, schema.Check([]byte(line)))
		}
		if l.V != 1 || l.Type != "listener" || l.Time.IsZero() || l.Warnings == nil ||
			!utf8.ValidString(line) {
			t.Fatalf("no record of a listener: %s", line)
		}
		all = append(all, l)
	}
	return all
}

// TestListeners: what synspy listeners says of sockets that are at hand.
func TestListeners(t *testing.T) {
	t.Run("as ss", testAsSS)
	t.Run("full", testListFull)
	t.Run("watch", testListWatch)
	t.Run("many", testListMany)
}

func testAsSS(t *testing.T) {
	if without("ss") {
		t.Skip("declared to be missing: ss")
	}
	w := newWorld(t)
	v6 := func(addr string, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
	}
	server := startServer(t, w, "a\x1b[2J\"<b>\xff",
		server.ListenConfig{Addr: anyAddr(8080), Backlog: 3},
		server.ListenConfig{Addr: v6("::", 8081), Backlog: 200},
		server.ListenConfig{Addr: v6("127.0.0.1", 8082), Backlog: 100000},
		server.ListenConfig{Addr: anyAddr(8084), Backlog: 7, MPTCP: true},
		server.ListenConfig{Addr: anyAddr(8083), Backlog: 9,
			ReusePort: true}, server.ListenConfig{
			Addr: anyAddr(8083), Backlog: 9, ReusePort: true})
	must(t, w.Handshakes(t.Context(), server4, 2))
	var want, got []string
	must(t, w.Do(func() error {
		out, err := exec.Command("ss", "-ltnH").Output()
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			want = append(want,
				fmt.Sprintf("%s %s/%s",
					strings.NewReplacer("*:", "[::]:").Replace(f[3]), f[1], f[2]))
		}
		return err
	}))
	for _, l := range list(t, 0, "--netns", w.Path()) {
		q := l.Listener.AcceptQueue
		if q == nil || l.Listener.SynQueue == nil || l.Listener.Inode == 0 ||
			l.Backlog == nil || l.Backlog.Somaxconn == nil ||
			l.Drops == nil || !l.Drops.Approximate || l.Listener.NetNS != w.NetNS() {
			t.Errorf("something is missing of %+v", l)
			continue
		}
		got = append(got,
			fmt.Sprintf("%s %d/%d",
				netip.AddrPortFrom(l.Listener.Addr, l.Listener.Port), q.Len, q.Limit))
		if len(l.Processes) != 1 || l.Processes[0].PID != server.PID {
			t.Errorf("processes %+v, want %d alone", l.Processes, server.PID)
		}
		if l.MPTCP != (l.Listener.Port == 8084) {
			t.Errorf("port %d: MPTCP %v", l.Listener.Port, l.MPTCP)
		}
		by := "listen"
		if l.Listener.Port == 8082 {
			by = "listen_or_somaxconn"
		}
		if l.Backlog.By != by {
			t.Errorf("port %d: limited by %q, want %q", l.Listener.Port, l.Backlog.By,
				by)
		}
		if grouped := l.Listener.Reuseport != nil &&
			l.Listener.Reuseport.Members == 2; grouped != (l.Listener.Port == 8083) {
			t.Errorf("port %d: group %+v", l.Listener.Port, l.Listener.Reuseport)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(got) != 6 {
		t.Errorf("listeners %q, ss has %q", got, want)
	}
	if few := list(t, 0, "--netns", w.Path(), "--port", "8081", "--pid",
		fmt.Sprint(server.PID)); len(few) != 1 {
		t.Errorf("%d listeners on port 8081", len(few))
	}
	out, _, _ := runProgram(t, 0, "listeners", "--netns", w.Path())
	for line := range strings.Lines(out) {
		if utf8.RuneCountInString(line) > 120 ||
			strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\n") ||
			!utf8.ValidString(line) {
			t.Errorf("a line of the table: %q", line)
		}
	}
}

// testListFull: warnings, each with what shows it, and the exit code.
func testListFull(t *testing.T) {
	w := newWorld(t)
	startServer(t, w, "idle", server.ListenConfig{Addr: anyAddr(9090), Backlog: 128})
	args := []string{"--netns", w.Path(), "--exit-code"}
	if l := list(t, 0, args...); len(l) != 1 || len(l[0].Warnings) != 0 {
		t.Errorf("an idle listener: %+v", l)
	}
	server := startServer(t, w, "full", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	loseSYNs(t, w, server4, 4)
	l := list(t, 4, append(args, "--sort", "queue")...)
	if len(l) != 2 || l[0].Listener.Port != port {
		t.Fatalf("sorted by queue: %+v", l)
	}
	for _, id := range []string{"accept_queue_over_half", "backlog_tiny", "asleep_elsewhere"} {
		if !l[0].warned(id) {
			t.Errorf("no warning %s: %+v", id, l[0].Warnings)
		}
	}
	if len(l[0].Processes) != 1 || l[0].Processes[0].PID != server.PID ||
		len(l[0].Processes[0].Threads) == 0 {
		t.Errorf("its threads are not told: %+v", l[0].Processes)
	}
	if l[0].Drops == nil || l[0].Drops.Count < 4 {
		t.Errorf("drops %+v, want 4 or more", l[0].Drops)
	}
	must(t, w.Sysctl("net.ipv4.tcp_syncookies", "0"))
	must(t, w.Sysctl("net.core.somaxconn", "128"))
	l = list(t, 4, append(args, "--port", "9090")...)
	if len(l) != 1 || !l[0].warned("syncookies_off") || !l[0].warned("backlog_capped") {
		t.Errorf("cookies off, somaxconn equal to the limit: %+v", l)
	}
}

// testListWatch: rates.
func testListWatch(t *testing.T) {
	w := newWorld(t)
	startServer(t, w, "full", server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
	fill(t, w, server4, 3)
	cmd := exec.Command(program, "listeners", "--watch", "--interval", "200ms", "--netns",
		w.Path(), "-o", "json", "--duration", "1m")
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Signal(syscall.SIGINT) }()
	decoder := json.NewDecoder(stdout)
	for deadline := time.Now().Add(patience); ; {
		var l listing
		must(t, decoder.Decode(&l))
		if l.Rates != nil && l.Rates.SYNs != nil && *l.Rates.SYNs > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("SYNs arrive, and it shows none")
		}
		loseSYNs(t, w, server4, 3)
	}
}

// testListMany: ten thousand listeners.
func testListMany(t *testing.T) {
	const many = 10000
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "many", First: 10000, Count: many, Backlog: 4})
	began := time.Now()
	out, _, state := runProgram(t, 0, "listeners", "-o", "json", "--netns", w.Path())
	took := time.Since(began)
	t.Logf("%v, of which %v on a CPU", took, state.UserTime()+state.SystemTime())
	all := listings(t, out)
	if len(all) != many {
		t.Errorf("%d listeners, want %d", len(all), many)
	}
	for _, l := range all {
		if len(l.Processes) != 1 || l.Processes[0].PID != h.pid ||
			l.Listener.SynQueue == nil {
			t.Fatalf("listener %+v", l)
		}
	}
}
