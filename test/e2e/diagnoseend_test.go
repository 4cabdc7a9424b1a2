// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/server"
)

// TestDiagnoseEnds: what is said where there is little to say, or something ends before the time.
func TestDiagnoseEnds(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"the port does not listen": testClosedPort,
		"several listeners match":  testSeveralListeners,
		"the listener vanishes":    testVanishes,
		"interrupted":              testInterrupted,
		"nobody reads":             testNobodyReads,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
	}
}

// testClosedPort: clients are refused, since the server listens on another port.
func testClosedPort(t *testing.T) {
	w := newWorld(t)
	startServer(t, w, "elsewhere", server.ListenConfig{Addr: anyAddr(port + 1), Backlog: 128,
		Accept: true})
	visitors(t, w, 1, 50*time.Millisecond)
	d := beginDiagnosis(t, "--netns", w.Path(), "--port", "8080", "--duration", "2s").end()
	if len(d.Findings) == 0 || d.Findings[0].ID != "no_listener" ||
		d.Findings[0].Severity != "cause" || d.Findings[0].Confidence != "proven" {
		t.Errorf("want no_listener: %s", d)
	}
}

// testSeveralListeners: one of three listeners that match is in trouble.
func testSeveralListeners(t *testing.T) {
	w := newWorld(t)
	startServer(t, w, "well", server.ListenConfig{Addr: anyAddr(port + 1), Backlog: 128,
		Accept: true})
	startServer(t, w, "alone", server.ListenConfig{Addr: anyAddr(port + 2), Backlog: 128,
		Accept: true})
	stuck := startServer(t, w, "stuck", server.ListenConfig{Addr: anyAddr(port), Backlog: 4})
	visitors(t, w, 1, 50*time.Millisecond)
	time.Sleep(500 * time.Millisecond)
	d := beginDiagnosis(t, "--netns", w.Path(), "--port", "8080-8082", "--duration", "2s").end()
	if len(d.causes()) != 1 || d.Findings[0].ID != "no_acceptor" ||
		!d.Findings[0].names(stuck.PID) || d.Findings[0].Listener.Port != port {
		t.Errorf("want no_acceptor of process %d: %s", stuck.PID, d)
	}
}

// testVanishes: the server ends in the middle, and clients go on coming.
func testVanishes(t *testing.T) {
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "vanishing", First: port, Count: 1, Backlog: 128})
	visitors(t, w, 1, 50*time.Millisecond)
	s := beginDiagnosis(t, "--netns", w.Path(), "--port", "8080", "--duration", "3s")
	time.Sleep(1500 * time.Millisecond)
	must(t, unix.Kill(h.pid, unix.SIGKILL))
	d := s.end()
	if len(d.Findings) == 0 || d.Findings[0].ID != "listener_restarted" &&
		d.Findings[0].ID != "no_listener" || d.Findings[0].Severity != "cause" {
		t.Errorf("want listener_restarted: %s", d)
	}
	for _, id := range d.causes() {
		if id != "listener_restarted" && id != "no_listener" {
			t.Errorf("%s is not a cause: %s", id, d)
		}
	}
}

// testInterrupted: Ctrl-C ends the watching, and what was seen is judged.
func testInterrupted(t *testing.T) {
	w := newWorld(t)
	startServer(t, w, "well", server.ListenConfig{Addr: anyAddr(port), Backlog: 128,
		Accept: true})
	visitors(t, w, 1, 50*time.Millisecond)
	s := beginDiagnosis(t, "--netns", w.Path(), "--duration", "10m")
	time.Sleep(2500 * time.Millisecond)
	must(t, s.cmd.Process.Signal(os.Interrupt))
	d := s.end()
	if len(d.Findings) == 0 || d.Findings[0].ID != "healthy" || d.WindowS > 60 {
		t.Errorf("want healthy: %s", d)
	}
}

// testNobodyReads: a closed pipe is no reason to say anything else than that, nor to hang.
func testNobodyReads(t *testing.T) {
	w := newWorld(t)
	read, write, err := os.Pipe()
	must(t, err)
	read.Close()
	defer write.Close()
	cmd := exec.Command(program, "diagnose", "--netns", w.Path(), "--duration", "500ms")
	var errs strings.Builder
	cmd.Stdout, cmd.Stderr = write, &errs
	err = cmd.Run()
	if err != nil { // as with trace | head
		t.Errorf("%v\n%s", err, errs.String())
	}
}
