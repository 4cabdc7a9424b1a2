// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/listenpath"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/lab/world/worldtest"
)

// shortened are scenarios whose real pace would only make the test slow.
var shortened = map[string]listenpath.SlowConfig{
	"slow-accept": {Pause: 5 * time.Second, Timeout: 1500 * time.Millisecond, Rounds: 2},
	"slow-accept-abort": {Pause: 5 * time.Second, Timeout: 1500 * time.Millisecond, Rounds: 1,
		Abort: true},
}

// TestScenarios plays every scenario with nobody watching: the kernel's own
// counters must be what the scenario promises to whoever does.
func TestScenarios(t *testing.T) {
	for _, s := range Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			play := s.Play
			if config, ok := shortened[s.Name]; ok {
				play = listenpath.PlaySlowAccept(config)
			}
			w := worldtest.New(t)
			before, err := w.Counters()
			if err != nil {
				t.Fatal(err)
			}
			e, err := play(t.Context(), w, t.Logf)
			if errors.Is(err, world.ErrCannotHold) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			moved, err := scenario.Since(w, before)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("counters: %s", format(moved))
			if !maps.Equal(moved, e.Counters) {
				t.Errorf("the kernel counted\n%s, expected\n%s", format(moved),
					format(e.Counters))
			}
			checkLedger(t, e)
			checkRecords(t, w, e)
			checkClients(t, w, e)
			if e.FromCounters {
				time.Sleep(1200 * time.Millisecond) // past the next retransmission
				if later, err := scenario.Since(w, before); err != nil ||
					!maps.Equal(later, moved) {
					t.Errorf("the cut network still moves counters: %s (%v)",
						format(later), err)
				}
			}
		})
	}
}

// checkLedger holds the records to the counters their causes list, as the
// tracer's ledger will.
func checkLedger(t *testing.T, e scenario.Expectation) {
	t.Helper()
	sums := make(map[event.Counter]uint64)
	for _, r := range e.Records {
		for _, c := range r.Cause.Info().Counters {
			sums[c] += uint64(r.Count)
		}
	}
	for _, c := range []event.Counter{event.CounterListenOverflows, event.CounterListenDrops,
		event.CounterTCPReqQFullDrop} {
		if c == event.CounterListenDrops && slices.ContainsFunc(e.Records, perBranch) {
			continue
		}
		if sums[c] != e.Counters[c] {
			t.Errorf("records explain %s %d, the kernel moves it by %d", c, sums[c],
				e.Counters[c])
		}
	}
	if got := e.Counters[event.CounterSyncookiesSent]; got != uint64(e.Cookies) {
		t.Errorf("%d cookies expected, SyncookiesSent moves by %d", e.Cookies, got)
	}
}

func checkRecords(t *testing.T, w *world.World, e scenario.Expectation) {
	t.Helper()
	for i, r := range e.Records {
		if r.Count == 0 || r.Cause == event.CauseUnknown ||
			r.Action == event.ActionUnknown {
			t.Errorf("row %d says nothing: %+v", i, r)
		}
		if r.Clients != nil && len(r.Clients) != r.Count || r.Attempts != nil &&
			len(r.Attempts) != r.Count {
			t.Errorf("row %d has %d records, %d clients, %d attempts", i, r.Count,
				len(r.Clients), len(r.Attempts))
		}
		if r.AcceptQueue != (scenario.Queue{}) &&
			len(e.PIDs) == 1 { // a group has two queues on one port
			if n := acceptQueue(t, w, r.Listener.Port()); n != r.AcceptQueue.Len {
				t.Errorf("the accept queue of %s holds %d, expected %d", r.Listener,
					n, r.AcceptQueue.Len)
			}
		}
	}
	for _, pid := range e.PIDs {
		if exited(e, pid) {
			continue
		}
		if got := netnsOf(t, fmt.Sprintf("/proc/%d/ns/net", pid)); got != w.NetNS() {
			t.Errorf("server %d runs in namespace %d, want %d", pid, got, w.NetNS())
		}
	}
}

func format(counters map[event.Counter]uint64) string {
	var b strings.Builder
	for _, c := range slices.Sorted(maps.Keys(counters)) {
		if counters[c] != 0 {
			fmt.Fprintf(&b, "%s %d, ", c, counters[c])
		}
	}
	if b.Len() == 0 {
		return "none moved"
	}
	return strings.TrimSuffix(b.String(), ", ")
}

func TestScenarioTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Scenarios() {
		if s.Name == "" || s.Title == "" || s.Explain == "" || s.Play == nil {
			t.Errorf("scenario %q is incomplete", s.Name)
		}
		if seen[s.Name] {
			t.Errorf("two scenarios are called %q", s.Name)
		}
		seen[s.Name] = true
		if found, ok := Find(s.Name); !ok || found.Title != s.Title {
			t.Errorf("Find does not find %q", s.Name)
		}
	}
	for name := range shortened {
		if !seen[name] {
			t.Errorf("no scenario %q to shorten", name)
		}
	}
	if _, ok := Find("no-such-scenario"); ok {
		t.Error("Find finds what is not there")
	}
}

// TestNothingLeftBehind plays the scenario with the most parts (two Worlds, two
// servers) and then looks for their threads, processes, and open files.
func TestNothingLeftBehind(t *testing.T) {
	w, err := world.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e, err := listenpath.PlayOtherNamespace(t.Context(), w, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[uint64]bool{w.NetNS(): true, e.Quiet[0]: true}
	if users := namespaceUsers(t, inodes); len(users) < 4 {
		t.Errorf("only %v are in the namespaces: this test sees nothing", users)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if users := namespaceUsers(t, inodes); len(users) != 0 {
		t.Errorf("still in the namespaces: %v", users)
	}
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		var st unix.Stat_t
		if unix.Stat(file, &st) == nil && inodes[st.Ino] {
			t.Errorf("%s still holds a namespace", file)
		}
	}
	for _, pid := range e.PIDs {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			t.Errorf("server %d is still there", pid)
		}
	}
}
