// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// serverCase is a server as one meets them, and who has to be named for it. Which
// processes have a listener open, and are called what, is asked of /proc.
type serverCase struct {
	name    string
	command func(t *testing.T) *exec.Cmd

	// After the first connection was accepted: how many listening sockets
	// there are, how many processes hold each, and whether the process that was
	// started is one of them.
	sockets, holders int
	leads            bool

	listens  listens
	acceptor acceptor
	// stopOne stops only the process that accepted.
	stopOne bool
}

// listens says which process calls listen(): one that holds the socket no more is not
// shown.
type listens int

const (
	byLeader listens = iota
	byAWorker
	byNobodyHere
)

// acceptor says which process accepts, and whether that shows without a hook on accept.
type acceptor int

const (
	keeps   acceptor = iota // it has the connection open, and one listener that it may be from
	gives                   // the leader, which gives the connection away
	blurred                 // it has several listeners that the connection may be from
)

// TestServers: who is named for the listeners of real servers that accept no more, by
// a synspy that ran before the server and by one that did not.
func TestServers(t *testing.T) {
	for _, c := range []serverCase{
		{name: "nginx", command: nginx(""), sockets: 1, holders: 3, leads: true},
		{name: "nginx reuseport", command: nginx(" reuseport"), sockets: 2, holders: 3,
			leads:    true,
			acceptor: blurred, stopOne: true},
		// The master lets go of what it opened for its worker.
		{name: "haproxy", command: haproxy(""), sockets: 1, holders: 1,
			listens: byNobodyHere},
		{name: "haproxy shards", command: haproxy(" shards 2"), sockets: 2, holders: 1,
			listens:  byNobodyHere,
			acceptor: blurred},
		{name: "Go", command: helperServer("http"), sockets: 1, holders: 1, leads: true},
		{name: "Node", command: node(nodeServer), sockets: 1, holders: 1, leads: true},
		// The primary accepts, and gives each connection to a worker.
		{name: "Node cluster", command: node(nodeCluster), sockets: 1, holders: 1,
			leads: true, acceptor: gives},
		// The workers are sent the socket, and call listen() and accept().
		{name: "Node cluster without round robin",
			command: node(nodeCluster, "NODE_CLUSTER_SCHED_POLICY=none"),
			sockets: 1, holders: 3, leads: true, listens: byAWorker},
		{name: "Python threads", command: python("ThreadingTCPServer"), sockets: 1,
			holders: 1, leads: true},
		// The child that serves the connection has the listener as well.
		{name: "Python forks", command: python("ForkingTCPServer"), sockets: 1, holders: 2,
			leads: true, acceptor: gives},
		{name: "systemd-socket-activate", command: activated, sockets: 1, holders: 1,
			leads: true},
		{name: "socket activation", command: helperServer("activate"), sockets: 1,
			holders: 2, leads: true},
		{name: "SCM_RIGHTS", command: helperServer("pass"), sockets: 1, holders: 1,
			listens: byNobodyHere},
		{name: "fork and exec", command: helperServer("fork"), sockets: 1, holders: 2,
			leads: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t)
		})
	}
}

func (c *serverCase) test(t *testing.T) {
	const backlog, drops = 3, 3
	w := newWorld(t)
	must(t, w.Sysctl("net.core.somaxconn", fmt.Sprint(backlog))) // whatever a server asks for
	early := start(t, "--netns", w.Path(), "--rate", "0")
	crew := startCrew(t, w, c.command(t))
	crew.await("it listens", func() bool { return len(crew.listeners()) == c.sockets })
	must(t, w.Handshakes(t.Context(), server4, 1))
	crew.await("it accepts", func() bool { return len(crew.connected()) == 1 })
	crew.await("all hold the listener", func() bool { return crew.hold(c.sockets, c.holders) })

	s := servedBy{serverCase: c, truth: crew.truth(), leader: crew.leader,
		connected: crew.connected()[0]}
	stopped := s.truth.pids()
	if c.stopOne {
		stopped = []int{s.connected}
	}
	crew.stop(stopped)
	s.truth = crew.truth()
	s.waits = pollersOf(t, s.truth)
	late := start(t, "--netns", w.Path(), "--rate", "0")
	lose := func(n int) {
		t.Helper()
		loseBetween(t, w, n, func() {
			if c.stopOne { // when both members are full, nobody can tell which one a SYN was for
				crew.await("the other accepts", func() bool {
					return queuesOf(t, w, port, 0).accept <= backlog+1
				})
			}
		})
	}
	// The first drop makes synspy ask who holds the listener. On a busy machine
	// the answer may come too late for it.
	first := loseUntil(t, lose, []*tracer{early, late}, func(r *record, tr *tracer) bool {
		return s.problem(r, tr == early, tr.backend) == ""
	})
	lose(drops)
	all := first + drops
	awaitDrops(early, all)
	awaitDrops(late, all)
	if now := crew.truth(); !now.equal(s.truth) {
		t.Fatalf("while SYNs were dropped, %v became %v", s.truth, now)
	}
	crew.proceed(stopped)
	crew.await("it accepts again", func() bool { return queuesOf(t, w, port, 0).accept == 0 })
	for _, tr := range []*tracer{early, late} {
		a := tr.stop()
		a.wantRow(w.NetNS(), "ListenOverflows", all, 0)
		records := a.of(w.NetNS())
		if len(records) != all {
			t.Errorf("%d records, want %d", len(records), all)
		}
		for i, r := range records {
			if r.Cause != "accept_queue_full" ||
				r.Listener.endpoint != (endpoint{anyAddr(port).Addr(), port}) {
				t.Errorf("record %d: %s of %+v", i, r.Cause, r.Listener)
			}
			if i >= first {
				if problem := s.problem(&r, tr == early, a.backend); problem != "" {
					t.Errorf("record %d, early %v: %s", i, tr == early, problem)
				}
			}
			for _, pid := range r.pids() {
				if pid != crew.leader && !slices.Contains(s.truth.pids(), pid) {
					t.Errorf("record %d: process %d never held the listener", i,
						pid)
				}
			}
		}
	}
}

// loseUntil loses SYNs until the last record of each trace is as wanted, and returns how
// many that took.
func loseUntil(t *testing.T, lose func(int), traces []*tracer, ok func(*record, *tracer) bool) int {
	t.Helper()
	for deadline, n := time.Now().Add(patience), 1; ; n++ {
		lose(1)
		done := true
		for _, tr := range traces {
			done = ok(awaitDrops(tr, n), tr) && done
		}
		if done || time.Now().After(deadline) { // then the records say why
			return n
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// awaitDrops waits for so many drops, and returns the last.
func awaitDrops(tr *tracer, n int) (last *record) {
	tr.t.Helper()
	tr.await(fmt.Sprintf("drop %d", n), func(records []record) bool {
		found := 0
		for i := range records {
			if records[i].Type == "drop" {
				last = &records[i]
				found++
			}
		}
		return found >= n
	})
	return last
}

// servedBy is what is true of a server that was started.
type servedBy struct {
	*serverCase
	truth     truth
	leader    int
	connected int   // who has the connection that was accepted
	waits     truth // who waits for which listener
}

// problem is what a record says otherwise than /proc; early is a trace that ran before the
// server did.
func (s *servedBy) problem(r *record, early bool, backend string) string {
	want := s.truth.processes(r.Listener.Inode)
	if r.Listener.Inode == 0 && s.sockets > 1 && !s.stopOne {
		want = s.truth.processes(s.truth.inodes()...) // the group: the kernel did not say which
	}
	if len(want) != s.holders || slices.ContainsFunc(want, func(p process) bool {
		return p.PID == s.leader
	}) != s.leads {
		return fmt.Sprintf("listener %+v (group %+v), which /proc says is held by %+v",
			r.Listener, r.Listener.Reuseport, want)
	}
	// Of several listeners that all have open, the stopped process waits for one.
	if s.stopOne && !slices.Equal(pidsOf(s.waits[r.Listener.Inode]), []int{s.connected}) {
		return fmt.Sprintf("listener %+v of %+v, but process %d is stopped", r.Listener,
			s.waits, s.connected)
	}
	problem := fmt.Sprintf("processes %+v, want %+v", r.Processes, want)
	if !sameList(r.Processes, want, func(a, b process) int {
		return cmp.Or(a.PID-b.PID, cmp.Compare(a.Comm, b.Comm))
	}) {
		return problem
	}
	roles := make(map[string][]int)
	for _, p := range r.Processes {
		roles[p.Role] = append(roles[p.Role], p.PID)
		if p.LastAcceptMs != nil && (p.Role != "acceptor" || backend == "tracepoint" ||
			!early) {
			return problem + ": that cannot know a time"
		}
	}
	acceptors := s.acceptors(early, backend)
	if s.acceptor == blurred && len(roles["acceptor"]) == 0 {
		acceptors = nil // from the other listener
	}
	if !slices.Equal(roles["acceptor"], acceptors) {
		return fmt.Sprintf("%s with acceptors %v", problem, acceptors)
	}
	if listeners := roles["listener"]; !s.mayListen(listeners, acceptors, early) {
		return fmt.Sprintf("%s: not %v called listen()", problem, listeners)
	}
	return ""
}

// acceptors is who is shown to have accepted.
func (s *servedBy) acceptors(early bool, backend string) []int {
	switch {
	case s.acceptor != keeps && (!early || backend == "tracepoint"):
		return nil
	case s.acceptor == gives:
		return []int{s.leader}
	}
	return []int{s.connected}
}

// mayListen reports whether these are who is shown to have called listen(). An acceptor is
// shown as that.
func (s *servedBy) mayListen(pids, acceptors []int, early bool) bool {
	switch {
	case !early, s.listens == byNobodyHere, s.listens == byLeader &&
		slices.Contains(acceptors, s.leader):
		return len(pids) == 0
	case s.listens == byLeader:
		return slices.Equal(pids, []int{s.leader})
	}
	return len(pids) <= 1 && !slices.Contains(pids, s.leader) // by a worker: the acceptor perhaps
}

// tool finds a server, which must be there unless it is declared to be missing.
func tool(t *testing.T, name string) string {
	t.Helper()
	if without(name) {
		t.Skipf("SYNSPY_E2E_WITHOUT says that there is no %s here", name)
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	t.Fatalf("no %s: scripts/install-deps.sh test installs it", name)
	return ""
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func nginx(options string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		dir := t.TempDir()
		paths := ""
		for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			paths += fmt.Sprintf("%s_temp_path %s/%s; ", what, dir, what)
		}
		config := fmt.Sprintf(`daemon off; user daemon daemon; worker_processes 2; pid %s/pid; error_log stderr;
			events { worker_connections 512; accept_mutex off; }
			http { access_log off; %s
			server { listen 8080 backlog=511%s; return 204; } }`, dir, paths, options)
		return exec.Command(tool(t, "nginx"), "-e", "stderr", "-p", dir, "-c",
			configFile(t, config))
	}
}

func haproxy(options string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		config := fmt.Sprintf(`global
	nbthread 2
	maxconn 512
defaults
	mode http
	timeout client 1m
frontend web
	bind 0.0.0.0:8080%s
	http-request return status 204
`, options)
		return exec.Command(tool(t, "haproxy"), "-W", "-db", "-f", configFile(t, config))
	}
}

const (
	nodeServer  = `require('http').createServer((q, a) => a.end()).listen(8080, '0.0.0.0')`
	nodeCluster = `const cluster = require('cluster')
if (cluster.isPrimary) { cluster.fork(); cluster.fork() } else { ` + nodeServer + ` }`
)

// node runs a script. A cluster's workers are told what to run by file, not by -e.
func node(script string, env ...string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		cmd := exec.Command(tool(t, "node"), configFile(t, script))
		cmd.Env = append(os.Environ(), env...)
		return cmd
	}
}

func python(server string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		return exec.Command(tool(t, "python3"), "-c", fmt.Sprintf(`import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self): self.rfile.read()
socketserver.%s(('0.0.0.0', 8080), Handler).serve_forever()`, server))
	}
}

func helperServer(mode string) func(*testing.T) *exec.Cmd {
	return func(*testing.T) *exec.Cmd {
		return helperCommand(helperConfig{Comm: "lead-" + mode, Serve: mode})
	}
}

// activated listens as systemd does; the first connection makes it execute the server.
func activated(t *testing.T) *exec.Cmd {
	self, err := os.Executable()
	must(t, err)
	return exec.Command(tool(t, "systemd-socket-activate"), "-l", "0.0.0.0:8080",
		"-E", helperSetting(helperConfig{Comm: "activated", Serve: "activated"}), self)
}
