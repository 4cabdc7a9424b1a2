// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// patience bounds the wait for anything that must happen: it only runs out on a
// failure, also where a machine is emulated.
const patience = 60 * time.Second

// process is a running synspy.
type process struct {
	*exec.Cmd
	t      *testing.T
	stdout *bufio.Reader
	pipe   io.Closer
	stderr bytes.Buffer
}

// start runs synspy as a process of its own.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(program, args...), t: t}
	p.begin()
	return p
}

// begin starts a process that may have been given a standard input.
func (p *process) begin() {
	t := p.t
	t.Helper()
	pipe, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout, p.pipe, p.Stderr = bufio.NewReader(pipe), pipe, &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	timeout := time.AfterFunc(patience, func() { _ = p.Process.Kill() })
	t.Cleanup(func() {
		timeout.Stop()
		_ = p.Process.Kill() // unless it has ended
	})
}

// line reads the next line of standard output.
func (p *process) line() string {
	p.t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		_ = p.Wait()
		p.t.Fatalf("read a line: %v; standard error:\n%s", err, p.stderr.String())
	}
	return line
}

// exit reads the rest of standard output and returns it with the exit code.
func (p *process) exit() (string, int) {
	p.t.Helper()
	rest, err := io.ReadAll(p.stdout)
	if err != nil && !errors.Is(err, os.ErrClosed) {
		p.t.Fatal(err)
	}
	return string(rest), exitOf(p.t, p.Wait())
}

// output runs a command to its end. Its standard output may have been set.
func output(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errs
	timeout := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timeout.Stop()
	code = exitOf(t, cmd.Run())
	return out.String(), errs.String(), code
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

// record is what these tests read of one.
type record struct {
	V      int    `json:"v"`
	Type   string `json:"type"`
	Cause  string `json:"cause"`
	Stage  string `json:"stage"`
	Action string `json:"action"`
	Limit  string `json:"limit"`
	Count  int    `json:"count"`
	Counts []struct {
		Count int `json:"count"`
	} `json:"counts"`
	Delivered  int   `json:"delivered"`
	Suppressed int   `json:"suppressed"`
	Lost       int   `json:"lost"`
	Balanced   *bool `json:"balanced"`
	Processes  []struct {
		Comm string `json:"comm"`
	} `json:"processes"`
}

func decode(t *testing.T, text string) []record {
	t.Helper()
	var records []record
	for line := range strings.Lines(text) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("decode %q: %v", line, err)
		}
		if r.V != 1 || r.Type == "" {
			t.Errorf("no version 1 or no type: %s", line)
		}
		records = append(records, r)
	}
	return records
}

// ofType counts the records of a type.
func ofType(records []record, kind string) int {
	n := 0
	for _, r := range records {
		if r.Type == kind {
			n++
		}
	}
	return n
}

// dropping makes a namespace whose listener drops SYNs, one each millisecond or
// so, until the test ends. It returns what --netns takes.
func dropping(t *testing.T) string {
	t.Helper()
	return droppingAtOnce(t, 1)
}

// droppingAtOnce drops that many each time.
func droppingAtOnce(t *testing.T, burst int) string {
	t.Helper()
	w, err := world.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	any4, s := netip.MustParseAddrPort("0.0.0.0:8080"),
		netip.AddrPortFrom(world.ServerAddr4, 8080)
	if _, err = server.Start(w,
		server.Config{Listeners: []server.ListenConfig{{Addr: any4,
			Backlog: 1}}}); err == nil {
		err = w.Handshakes(t.Context(), s, 2)
	}
	if err != nil {
		t.Fatal(errors.Join(err, w.Close()))
	}
	client, stop, done := w.Client(s), make(chan struct{}), make(chan error)
	if err := client.SYN(); err != nil { // so that something is counted from the start
		t.Fatal(errors.Join(err, w.Close()))
	}
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(time.Millisecond):
			}
			for range burst {
				if err := client.SYN(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	return strconv.FormatUint(w.NetNS(), 10)
}

// onlyStatus fails if standard error has more than the lines that say what is
// being watched.
func onlyStatus(t *testing.T, stderr string) {
	t.Helper()
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "synspy: watching on Linux ") &&
			!strings.HasPrefix(line, "synspy: no listener matches yet") {
			t.Errorf("unexpected on standard error: %s", line)
		}
	}
}

var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}
