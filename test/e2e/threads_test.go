// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// What is said of threads, as the documentation has it.
type (
	thread struct {
		TID     int
		Comm    string
		State   string
		Syscall *struct {
			Name   string
			Number *int
			Args   []string
		}
		Stack      []string
		Accepts    string
		OnCPUNs    uint64 `json:"on_cpu_ns"`
		RunDelayNs uint64 `json:"run_delay_ns"`
		DuringMs   uint64 `json:"during_ms"`
		RanNs      uint64 `json:"ran_ns"`
	}
	cpu struct {
		Cgroup            string
		QuotaUs           uint64 `json:"quota_us"`
		PeriodUs          uint64 `json:"period_us"`
		Throttled         uint64
		DuringMs          uint64 `json:"during_ms"`
		ThrottledDuring   uint64 `json:"throttled_during"`
		ThrottledNsDuring uint64 `json:"throttled_ns_during"`
	}
	sampledProcess struct {
		PID         int
		SampledAt   time.Time `json:"sampled_at"`
		ThreadCount int       `json:"thread_count"`
		Threads     []thread
		CPU         *cpu
	}
	sampledRecord struct {
		Type      string
		Time      time.Time
		Processes []sampledProcess
	}
)

// watchDrops loses SYNs of the world's full listener until so many records have told of the
// threads of its process, and returns these records and how many there were in all.
func watchDrops(t *testing.T, w *world.World, pid, want int) (told []sampledRecord, all int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "records")
	tr := start(t, "--netns", w.Path(), "--rate", "0", "--write", file)
	for deadline := time.Now().Add(patience); len(told) < want; {
		if time.Now().After(deadline) {
			t.Fatalf("%d records with threads, want %d", len(told), want)
		}
		loseSYNs(t, w, server4, 2)
		told, _ = sampledRecords(t, file, pid)
	}
	tr.stop()
	return sampledRecords(t, file, pid)
}

func sampledRecords(t *testing.T, file string, pid int) (told []sampledRecord, all int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0
	}
	must(t, err)
	for line := range strings.Lines(string(text)) {
		var r sampledRecord
		if !strings.HasSuffix(line, "\n") || json.Unmarshal([]byte(line), &r) != nil ||
			r.Type != "drop" {
			continue
		}
		all++
		if slices.ContainsFunc(r.Processes, func(p sampledProcess) bool {
			return p.PID == pid && len(p.Threads) > 0
		}) {
			told = append(told, r)
		}
	}
	return told, all
}

// TestThreads: what a dropping listener's threads were doing.
func TestThreads(t *testing.T) {
	t.Run("asleep", testAsleep)
	t.Run("throttled", testThrottled)
	t.Run("spinning", testSpinning)
}

// testAsleep: the thread that should accept sleeps after each accept.
func testAsleep(t *testing.T) {
	w := newWorld(t)
	server := startServer(t, w, "slow", server.ListenConfig{Addr: anyAddr(port), Backlog: 1,
		Accept: true, Pause: time.Hour})
	must(t, w.Handshakes(t.Context(), server4, 1)) // which it accepts, and then sleeps
	for deadline := time.Now().Add(patience); queuesOf(t, w, port,
		0).established > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not accept")
		}
	}
	time.Sleep(20 * time.Millisecond) // from accept() to the sleep
	fillUp(t, w)
	told, all := watchDrops(t, w, server.PID, 2)
	if len(told)*2 > all {
		t.Errorf("%d of %d records tell of threads: that is not once a second", len(told),
			all)
	}
	for _, r := range told {
		p := r.Processes[0]
		i := slices.IndexFunc(p.Threads, func(x thread) bool {
			return x.State == "S" && x.Syscall != nil &&
				strings.HasSuffix(x.Syscall.Name, "nanosleep") &&
				slices.ContainsFunc(x.Stack, func(f string) bool {
					return strings.Contains(f, "nanosleep")
				})
		})
		if i < 0 {
			t.Errorf("no thread of %+v sleeps in nanosleep", p)
		}
		if p.ThreadCount < len(p.Threads) || p.SampledAt.Before(r.Time.Add(-time.Second)) ||
			p.SampledAt.After(r.Time.Add(patience)) {
			t.Errorf("sampled at %v, record of %v: %d of %d threads", p.SampledAt,
				r.Time, len(p.Threads), p.ThreadCount)
		}
		for _, x := range p.Threads {
			if x.Accepts == "accept" || x.Accepts == "epoll" {
				t.Errorf("nobody accepts, and %+v does", x)
			}
		}
	}
}

// fillUp completes handshakes until one more SYN is not answered.
func fillUp(t *testing.T, w *world.World) {
	t.Helper()
	for range 100 {
		clients, err := w.Burst(t.Context(), server4, 1)
		must(t, err)
		if !clients[0].Answered() {
			return
		}
		must(t, clients[0].ACK())
	}
	t.Fatal("100 handshakes, and the listener is not full")
}

// limitedGroup makes a cgroup with a quota of 2 % of one CPU.
func limitedGroup(t *testing.T) (dir string) {
	t.Helper()
	return cpuGroup(t,
		[][2]string{{"cpu.cfs_period_us", "50000"},
			{"cpu.cfs_quota_us", "1000"}}, [][2]string{{"cpu.max", "1000 50000"}})
}

// favouredGroup makes a cgroup whose processes get a CPU before others do: what they are seen doing
// does not depend on what else the machine has to do.
func favouredGroup(t *testing.T) (dir string) {
	t.Helper()
	return cpuGroup(t, [][2]string{{"cpu.shares", "262144"}},
		[][2]string{{"cpu.weight", "10000"}})
}

// cpuGroup makes a cgroup with these settings, of whichever version has the CPU controller here.
func cpuGroup(t *testing.T, v1, v2 [][2]string) (dir string) {
	t.Helper()
	root, settings := "/sys/fs/cgroup/cpu", v1
	if _, err := os.Stat(filepath.Join(root, "cpu.shares")); err != nil {
		root, settings = cgroup2Mount(t), v2
		must(t, os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"),
			0o600))
	}
	dir, err := os.MkdirTemp(root, "synspy-e2e-cpu-")
	must(t, err)
	for _, s := range settings {
		must(t, os.WriteFile(filepath.Join(dir, s[0]), []byte(s[1]), 0o600))
	}
	t.Cleanup(func() {
		for range 500 { // busy until its last process is reaped
			if os.Remove(dir) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s is not empty", dir)
	})
	return dir
}

func join(t *testing.T, dir string, pid int) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600))
}

// testThrottled: a busy server may use 2 % of a CPU.
func testThrottled(t *testing.T) {
	dir := limitedGroup(t)
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "throttled", First: port, Count: 1, Backlog: 3,
		Spin: true})
	join(t, dir, h.pid)
	fillUp(t, w)
	told, _ := watchDrops(t, w, h.pid, 3)
	throttled := false
	for _, r := range told {
		c := r.Processes[0].CPU
		if c == nil || c.QuotaUs != 1000 || c.PeriodUs != 50000 ||
			filepath.Base(c.Cgroup) != filepath.Base(dir) {
			t.Errorf("cpu %+v, want the quota of %s", c, dir)
			continue
		}
		throttled = throttled || c.ThrottledDuring > 0 && c.ThrottledNsDuring > 0 &&
			c.DuringMs > 0
	}
	if !throttled {
		t.Errorf("no throttling between samples: %+v", told)
	}
}

// testSpinning: a busy server is seen to run.
func testSpinning(t *testing.T) {
	w := newWorld(t)
	h := startHelper(t, w, helperConfig{Comm: "spinning", First: port, Count: 1, Backlog: 3,
		Spin: true})
	fillUp(t, w)
	told, _ := watchDrops(t, w, h.pid, 3)
	ran := 0
	for _, r := range told {
		if slices.ContainsFunc(r.Processes[0].Threads, func(x thread) bool {
			return x.State == "R" && x.RanNs > 1_000_000
		}) {
			ran++
		}
	}
	if ran == 0 {
		t.Errorf("no thread was seen to run: %+v", told)
	}
}

// runProgram runs synspy and returns what it wrote.
func runProgram(t testing.TB, wantCode int, args ...string,
) (stdout, stderr string, state *os.ProcessState) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		t.Fatalf("%s: exit code %d, want %d; it said:\n%.2000s\n%.2000s", args, code,
			wantCode, out.String(), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState
}
