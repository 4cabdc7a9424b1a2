// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// TestForeignTraffic: what others on the machine drop meanwhile, at a listener and before any,
// fails no scenario.
func TestForeignTraffic(t *testing.T) {
	flooding(t)
	for _, args := range [][]string{{"lab", "run", "two-ports"},
		{"lab", "run", "two-ports", "syn-queue-full", "no-listener", "other-namespace"}} {
		cmd := exec.Command(program, args...)
		stdout, stderr, code := output(t, cmd)
		if code != 0 || strings.Contains(stdout, "FAIL") ||
			strings.Count(stdout, "PASS") != len(args)-2 {
			t.Errorf("%v: exit code %d\n%s\nstandard error:\n%s", args, code, stdout,
				stderr)
		}
		// Records of the whole machine would take 1 GB in half a minute.
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok || usage.Maxrss > 128<<10 {
			t.Errorf("%v: %+v", args, usage)
		}
		t.Logf("%v: %d MB", args, usage.Maxrss>>10)
	}
}

// flooding makes a namespace with as many SYNs as it takes, half of them to a full listener and
// half to a closed port, until the test ends.
func flooding(t *testing.T) {
	t.Helper()
	w, err := world.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	full, closed := netip.AddrPortFrom(world.ServerAddr4, 8080),
		netip.AddrPortFrom(world.ServerAddr4, 8081)
	_, err = server.Start(w,
		server.Config{Listeners: []server.ListenConfig{
			{Addr: netip.MustParseAddrPort("0.0.0.0:8080"), Backlog: 1}}})
	if err == nil {
		err = w.Handshakes(t.Context(), full, 2)
	}
	if err != nil {
		t.Fatal(errors.Join(err, w.Close()))
	}
	frames := append(w.SYNFrames(full, 200), w.SYNFrames(closed, 200)...)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := w.Inject(frames); err != nil {
				done <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
}
