// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/world"
)

// trouble is a server as one meets them, in trouble.
type trouble struct {
	name    string
	command func(*testing.T) *exec.Cmd
	// begin makes the trouble, where the server does not make it itself, and returns who is to
	// be named: nobody else but the leader then.
	begin func(*crew) int
	// somaxconn bounds the accept queue, whatever the server asks for.
	somaxconn int
	come      func(t *testing.T, w *world.World, atOnce int, every time.Duration) // visitors, if it is nil
	atOnce    int
	every     time.Duration
	// want is the first finding, or one of several that are as true; the only cause.
	want []string
	// title and function are in the finding's title and in its stack.
	title, function string
}

// TestRealServers: what is diagnosed of real servers that do not accept, by somebody who comes when
// they are in trouble already.
func TestRealServers(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		for _, c := range []trouble{
			{name: "nginx with its workers stopped", command: nginx(""),
				begin: stopWorkers, want: []string{"process_stopped"},
				title: "nginx"},
			{name: "Python sleeps", command: pythonLoop("time.sleep(1)"),
				want: []string{"accept_loop_blocked"}, title: "nanosleep",
				function: "sleep"},
			{name: "Python waits for an upstream",
				command: pythonLoop("select.select([up], [], [], 1)"),
				want:    []string{"accept_loop_blocked"}, title: "select"},
			{name: "Python waits for a TLS client that says nothing",
				command: pythonTLS, come: silentVisitors,
				want: []string{"accept_loop_blocked"}, title: "poll"},
			{name: "haproxy at maxconn", command: haproxyFull,
				want: []string{"no_acceptor", "accept_rate_exceeded"}},
			{name: "Go with a capped backlog", command: helperServer("unhurried"),
				somaxconn: 4, atOnce: 16, every: 500 * time.Millisecond,
				want: []string{"backlog_capped"}, title: "somaxconn"},
		} {
			t.Run(c.name, func(t *testing.T) { t.Parallel(); c.test(t) })
		}
	})
	// These take a CPU each: one after the other.
	for _, c := range []trouble{
		{name: "Python computes",
			command: pythonLoop("hashlib.pbkdf2_hmac('sha256', b'x', b'y', 400000)"),
			want:    []string{"accept_loop_busy"}, function: "libcrypto"},
		{name: "Python does TLS", command: pythonTLS, come: secureVisitors, atOnce: 20,
			every: 50 * time.Millisecond,
			want:  []string{"accept_loop_busy"}, function: "libcrypto"},
		{name: "Node computes", command: node(nodeBusy), want: []string{"accept_loop_busy"},
			title: "node"},
		{name: "Go computes", command: helperServer("computing"),
			want: []string{"accept_loop_busy"}, function: "computeBeforeTheNext"},
	} {
		t.Run(c.name, c.test)
	}
}

// windows are how many a case has: on a busy machine a server that is to be seen computing may be
// kept waiting for a CPU in one of them, and then that is what is true.
const windows = 3

func (c trouble) test(t *testing.T) {
	group := favouredGroup(t)
	w := newWorld(t)
	if c.somaxconn == 0 {
		c.somaxconn = 8
	}
	if c.atOnce == 0 {
		c.atOnce, c.every = 2, 50*time.Millisecond
	}
	must(t, w.Sysctl("net.core.somaxconn", fmt.Sprint(c.somaxconn)))
	crew := startCrew(t, w, c.command(t))
	join(t, group, crew.leader)
	crew.await("it listens", func() bool { return len(crew.listeners()) == 1 })
	for _, pid := range crew.truth().pids() { // those that it started before
		join(t, group, pid)
	}
	pids := pidsOf(crew.truth().processes(crew.listeners()...))
	named := 0
	if c.begin != nil {
		named = c.begin(crew)
	}
	if c.come == nil {
		c.come = visitors
	}
	c.come(t, w, c.atOnce, c.every)
	time.Sleep(500 * time.Millisecond) // it is in trouble by now
	d := beginDiagnosis(t, "--netns", w.Path(), "--duration", "2500ms").end()
	for n := 1; n < windows && len(d.Findings) > 0 && d.Findings[0].ID == "cpu_starved"; n++ {
		t.Logf("watched again: the machine is busy, and so the server had no CPU: %s", d)
		d = beginDiagnosis(t, "--netns", w.Path(), "--duration", "2500ms").end()
	}
	if len(d.Findings) == 0 || !slices.Contains(c.want, d.Findings[0].ID) ||
		len(d.causes()) != 1 {
		t.Fatalf("want %v: %s", c.want, d)
	}
	f := &d.Findings[0]
	for _, p := range f.Processes {
		if !slices.Contains(pids, p.PID) {
			t.Errorf("process %d does not hold the listener: %s", p.PID, d)
		}
	}
	if len(f.Processes) == 0 || named != 0 && !f.names(named) {
		t.Errorf("process %d is not named: %s", named, d)
	}
	if !strings.Contains(f.Title, c.title) {
		t.Errorf("its title has no %q: %s", c.title, d)
	}
	if !strings.Contains(f.shown("stack"), c.function) {
		t.Errorf("its stack has no %q: %s", c.function, d)
	}
}

// stopWorkers stops all but the leader.
func stopWorkers(c *crew) int {
	c.await("it has workers", func() bool { return c.hold(1, 3) })
	pids := c.truth().pids()
	workers := slices.DeleteFunc(pids, func(pid int) bool { return pid == c.leader })
	c.stop(workers)
	return workers[0]
}

// pythonLoop is a server of one thread that does something after each accept.
func pythonLoop(work string) func(*testing.T) *exec.Cmd {
	return func(t *testing.T) *exec.Cmd {
		return exec.Command(tool(t, "python3"), "-c", fmt.Sprintf(`import hashlib, select, socket, time
s = socket.create_server(('0.0.0.0', 8080), backlog=128)
up, down = socket.socketpair()
keep = []
while True:
    keep.append(s.accept())
    %s
`, work))
	}
}

// pythonTLS is a server of one thread that shakes hands by TLS before it accepts the next.
func pythonTLS(t *testing.T) *exec.Cmd {
	return exec.Command(tool(t, "python3"), "-c", `import socket, ssl, sys
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[1])
s = socket.create_server(('0.0.0.0', 8080), backlog=128)
while True:
    c, _ = s.accept()
    c.settimeout(1)
    try:
        tls.wrap_socket(c, server_side=True)
    except OSError: # a client that left, or says nothing
        pass
`, certificate(t))
}

// certificate makes one with its key, and returns the file that has both. With a key so long a
// handshake takes some milliseconds.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	must(t, err)
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	must(t, err)
	return configFile(t,
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))+
			string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY",
				Bytes: x509.MarshalPKCS1PrivateKey(key)})))
}

// haproxyFull has two clients at most, and leaves the rest to the kernel.
func haproxyFull(t *testing.T) *exec.Cmd {
	return exec.Command(tool(t, "haproxy"), "-W", "-db", "-f", configFile(t, `global
	nbthread 2
	maxconn 512
defaults
	mode http
	timeout client 1m
	timeout http-request 1m
	timeout http-keep-alive 1m
frontend web
	bind 0.0.0.0:8080
	maxconn 2
	http-request return status 204
`))
}

const nodeBusy = `require('http').createServer((q, a) => {
	for (const end = Date.now() + 200; Date.now() < end;);
	a.end()
}).listen(8080, '0.0.0.0')`
