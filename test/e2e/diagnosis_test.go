// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/test/schema"
)

// What synspy diagnose writes, as its documentation has it.
type (
	finding struct {
		ID, Severity, Title, Confidence, Settles string
		Listener                                 *listener
		Processes                                []process
		Evidence                                 []struct {
			What  string
			Value any
		}
		Fix []string
	}
	diagnosis struct {
		Type     string
		WindowS  float64 `json:"window_s"`
		Verdict  string
		Findings []finding
	}
)

// causes lists what it calls a cause, in order.
func (d *diagnosis) causes() (ids []string) {
	for _, f := range d.Findings {
		if f.Severity == "cause" {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

func (d *diagnosis) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f s: %s\n", d.WindowS, d.Verdict)
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "- %s %s (%s): %s; %s\n", f.Severity, f.ID, f.Confidence, f.Title,
			strings.Join(f.Fix, "; "))
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "    %s: %v\n", e.What, e.Value)
		}
	}
	return b.String()
}

// shown is what a finding's evidence says of something; empty if nothing.
func (f *finding) shown(what string) string {
	for _, e := range f.Evidence {
		if strings.HasPrefix(e.What, what) {
			return fmt.Sprint(e.Value)
		}
	}
	return ""
}

func (f *finding) names(pid int) bool {
	return slices.ContainsFunc(f.Processes, func(p process) bool { return p.PID == pid })
}

// session is a running synspy diagnose.
type session struct {
	t           testing.TB
	cmd         *exec.Cmd
	out, errors bytes.Buffer
	ended       chan error
}

// beginDiagnosis starts one that writes JSON.
func beginDiagnosis(t testing.TB, args ...string) *session {
	t.Helper()
	s := &session{t: t, ended: make(chan error, 1)}
	s.cmd = exec.Command(program, append([]string{"diagnose", "-o", "json"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.errors
	s.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	must(t, s.cmd.Start())
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	return s
}

// end waits for it, and reads what it said.
func (s *session) end() *diagnosis {
	s.t.Helper()
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Fatalf("synspy diagnose: %v\n%s", err, &s.errors)
		}
	case <-time.After(patience):
		s.t.Fatalf("synspy diagnose does not end")
	}
	d := &diagnosis{}
	if err := json.Unmarshal(s.out.Bytes(), d); err != nil || d.Type != "diagnosis" {
		s.t.Fatalf("synspy diagnose wrote %q: %v", s.out.Bytes()[:min(s.out.Len(), 500)],
			err)
	}
	if err := schema.Check(s.out.Bytes()); err != nil {
		s.t.Error(err)
	}
	return d
}

// visitors are ordinary clients on the loopback device of a namespace, so many a second until
// the test ends: each asks for a page and stays.
func visitors(t *testing.T, w *world.World, atOnce int, every time.Duration) {
	t.Helper()
	visitorsWhoSay(t, w, "GET / HTTP/1.1\r\nHost: test\r\n\r\n", atOnce, every)
}

// silentVisitors ask for nothing, and stay.
func silentVisitors(t *testing.T, w *world.World, atOnce int, every time.Duration) {
	t.Helper()
	visitorsWhoSay(t, w, "", atOnce, every)
}

func visitorsWhoSay(t *testing.T, w *world.World, words string, atOnce int, every time.Duration) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	var open []int
	come := func() error {
		fd, err := connecting()
		open = append(open, fd)
		return err
	}
	go func() {
		defer close(done)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		said := make(map[int]bool)
		for {
			for range atOnce {
				if err := w.Do(come); err != nil {
					t.Error(err)
					return
				}
			}
			for _, fd := range open {
				if words != "" && !said[fd] { // EAGAIN until it is connected
					_, err := unix.Write(fd, []byte(words))
					said[fd] = err == nil
				}
			}
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
		}
	}()
	t.Cleanup(func() {
		close(quit)
		<-done
		for _, fd := range open {
			unix.Close(fd)
		}
	})
}

// connecting makes a socket of this namespace that connects to the server on the loopback device.
func connecting() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		0)
	if err != nil {
		return -1, err
	}
	// An RST at the end leaves nothing that keeps the namespace alive.
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == unix.EINPROGRESS {
		err = nil
	}
	return fd, err
}

// secureVisitors come so many a second until the test ends, shake hands by TLS, and leave.
func secureVisitors(t *testing.T, w *world.World, atOnce int, every time.Duration) {
	t.Helper()
	var visits sync.WaitGroup
	visit := func(fd int) {
		file := os.NewFile(uintptr(fd), "client")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(2*time.Second)))
		_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Handshake() // it may be one of those that nobody answers
	}
	quit := make(chan struct{})
	visits.Go(func() {
		for ticker := time.NewTicker(every); ; {
			for range atOnce {
				var fd int
				if err := w.Do(func() (err error) {
					fd, err = connecting()
					return err
				}); err != nil {
					t.Error(err)
					return
				}
				visits.Go(func() { visit(fd) })
			}
			select {
			case <-quit:
				ticker.Stop()
				return
			case <-ticker.C:
			}
		}
	})
	t.Cleanup(func() {
		close(quit)
		visits.Wait()
	})
}
