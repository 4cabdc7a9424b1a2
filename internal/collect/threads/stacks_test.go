// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// stackHelper makes the test binary a server, of the kind that is its value.
const stackHelper = "SYNSPY_STACK_HELPER"

// TestStackHelper is no test, but what the tests watch.
func TestStackHelper(t *testing.T) {
	kind := os.Getenv(stackHelper)
	if kind == "" {
		return
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(listener.Addr()) // ready
	for {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if kind == "spin" {
			spinOnTheAcceptPath()
		} else {
			sleepOnTheAcceptPath()
		}
	}
}

//go:noinline
func spinOnTheAcceptPath() {
	for n := 0; n >= 0; n++ {
		if n == 1<<30 {
			n = 0
		}
	}
}

//go:noinline
func sleepOnTheAcceptPath() { time.Sleep(time.Hour) }

// startHelper starts a program, whose first line says that it is ready.
func startHelper(t *testing.T, environment string, command ...string) (pid uint32, ready string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), environment)
	cmd.Stderr = t.Output()
	cmd.Dir = t.TempDir()         // node leaves a log
	input, err := cmd.StdinPipe() // which ends with us
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports the kill
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if line == "" {
		t.Fatalf("%s did not get ready: %q, %v", command[0], line, err)
	}
	return uint32(cmd.Process.Pid), strings.TrimSpace(line)
}

func startServer(t *testing.T, kind string) uint32 {
	t.Helper()
	pid, address := startHelper(t, stackHelper+"="+kind, "/proc/self/exe",
		"-test.run=^TestStackHelper$")
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Read(make([]byte, 1)) // accepted and closed: it is where it is to be, or soon
	return pid
}

// seenWithin bounds how long it may take until something is seen, on a machine busy with other
// things.
const seenWithin = 30 * time.Second

// await reads stacks until one of the process is as it should be.
func await(t *testing.T, w *stackWatch, pid uint32, what string,
	found func(*event.Stack) bool) *event.Stack {
	t.Helper()
	var stacks []event.Stack
	for began := time.Now(); time.Since(began) < seenWithin; time.Sleep(
		100 * time.Millisecond) {
		var err error
		if stacks, err = w.read(context.Background()); err != nil {
			t.Fatal(err)
		}
		for i := range stacks {
			if stacks[i].PID == pid && found(&stacks[i]) {
				return &stacks[i]
			}
		}
	}
	for i := range stacks {
		if stacks[i].PID == pid {
			t.Logf("%+v", stacks[i])
		}
	}
	t.Fatalf("process %d: no stack %s", pid, what)
	return nil
}

// has reports whether a frame's function contains the text.
func has(stack *event.Stack, text string, kernel bool) bool {
	for _, frame := range stack.Frames {
		if frame.Kernel == kernel && strings.Contains(frame.Function, text) {
			return true
		}
	}
	return false
}

func testWatch(t *testing.T, pids ...uint32) *stackWatch {
	t.Helper()
	w, err := openStacks("",
		slog.New(slog.NewTextHandler(t.Output(),
			&slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.watch(pids); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestStacksOfGo(t *testing.T) {
	spin, sleep := startServer(t, "spin"), startServer(t, "sleep")
	w := testWatch(t, spin, sleep)
	busy := await(t, w, spin, "with the function that spins", func(s *event.Stack) bool {
		return s.State == event.ThreadRunning &&
			has(s, "threads.spinOnTheAcceptPath", false) &&
			has(s, "testing.tRunner", false)
	})
	t.Log(busy)
	// A goroutine that sleeps has no thread; those there are wait in the runtime.
	idle := await(t, w, sleep, "of the runtime waiting", func(s *event.Stack) bool {
		return s.State == event.ThreadSleeping && s.NS > 0 && has(s, "runtime.", false) &&
			has(s, "futex", true)
	})
	t.Log(idle)
}

const pythonSleeps = `import sys, time
print("ready", flush=True)
while True: time.sleep(%s)`

const pythonSpins = `print("ready", flush=True)
while True: pass`

func TestStacksOfPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	long, _ := startHelper(t, "", python, "-c", fmt.Sprintf(pythonSleeps, "3600"))
	short, _ := startHelper(t, "", python, "-c", fmt.Sprintf(pythonSleeps, "0.02"))
	spin, _ := startHelper(t, "", python, "-c", pythonSpins)
	time.Sleep(100 * time.Millisecond) // the first one sleeps before anyone watches
	w := testWatch(t, long, short, spin)
	for _, pid := range []uint32{long, short} {
		stack := await(t, w, pid, "that sleeps", func(s *event.Stack) bool {
			return s.State == event.ThreadSleeping && s.NS > 0 &&
				s.Before == (pid == long) && has(s, "nanosleep", true)
		})
		t.Log(stack)
	}
	stack := await(t, w, spin, "on a CPU",
		func(s *event.Stack) bool { return s.State == event.ThreadRunning })
	t.Log(stack)
}

func TestStacksOfNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		return // CI has none; internal/symbol tests perf maps without it
	}
	pid, _ := startHelper(t, "", node, "--perf-basic-prof", "-e", `
function hotSpin() { let n = 0; for (;;) { n = (n * 31 + 7) | 0; if (n === 12345678) console.log(n) } }
console.log("ready"); setTimeout(hotSpin, 10)`)
	w := testWatch(t, pid)
	t.Cleanup(func() { os.Remove(fmt.Sprintf("/tmp/perf-%d.map", pid)) })
	stack := await(t, w, pid, "in compiled code", func(s *event.Stack) bool {
		return s.State == event.ThreadRunning && has(s, "hotSpin", false)
	})
	t.Log(stack)
}

// TestFollow: nobody is watched while nothing is wrong, if the kernel shows later who slept then;
// and what was seen stays.
func TestFollow(t *testing.T) {
	pid, _ := startHelper(t, "", "sh", "-c", "echo ready; exec sleep 3600")
	w, err := openStacks("",
		slog.New(slog.NewTextHandler(t.Output(),
			&slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	seen := func() int {
		stacks, err := w.read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return len(stacks)
	}
	w.follow([]uint32{pid}, false)
	if late := w.sampler.Support().Late(); (seen() == 0) != late {
		t.Errorf("%d stacks are seen while nothing is wrong; those of sleepers can be had later: %t", seen(), late)
	}
	asleep := func(s *event.Stack) bool {
		return s.State == event.ThreadSleeping &&
			has(s, "nanosleep", true)
	}
	w.follow([]uint32{pid}, true)
	await(t, w, pid, "that sleeps", asleep)
	w.follow([]uint32{pid}, false)
	await(t, w, pid, "that slept", asleep)
	w.follow([]uint32{pid}, true)
	await(t, w, pid, "that sleeps again", asleep)
}

// TestAddStacks: those seen on a CPU go to the samples of the time in which that was watched.
func TestAddStacks(t *testing.T) {
	thread := evidence.Thread{PID: 1, TID: 1,
		Samples: []evidence.Sample{{OffsetMs: 100, State: "R"}, {OffsetMs: 900, State: "R"},
			{OffsetMs: 1000, State: "R"}}}
	stacks := []event.Stack{{PID: 1, TID: 1, State: event.ThreadRunning, Samples: 9,
		Frames: []event.Frame{{Function: "compute"}}}}
	addStacks(&thread, stacks, func(s *evidence.Sample) bool { return s.OffsetMs >= 900 })
	for i, want := range []bool{false, true, true} {
		if got := thread.Samples[i]; got.OnCPU != want || (len(got.User) > 0) != want {
			t.Errorf("sample %d: %+v", i, got)
		}
	}
}
