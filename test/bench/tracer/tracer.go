// SPDX-License-Identifier: Apache-2.0

// Package tracer runs programs that trace, synspy and those that it is compared with, empty ones
// among them.
package tracer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/synspy/synspy/test/bench/cpu"
)

// Tracer is a program that says why handshakes were dropped, as its user would
// start it, its output going to a file.
type Tracer struct {
	Name  string
	Argv  []string
	Ready string // printed, to either stream, once it watches
	// flood reads the output of a flood: records so far, and drops that the
	// output accounts for, those it tells of only by number included.
	Flood func(out []byte) (printed, counted int)
	// floodArgs are further arguments for a flood.
	FloodArgs []string
	// throughputOnly is one that tells nothing: only what it takes is of interest.
	ThroughputOnly bool
	// anyCPU leaves the tracer where the kernel puts it.
	AnyCPU bool
}

// startTimeout is how long a tracer may take to become ready, emulated.
const startTimeout = 90 * time.Second

// Running is a tracer that watches.
type Running struct {
	cmd     *exec.Cmd
	dir     string
	ToReady time.Duration // from exec
	piped   bool          // its output is someone else's to read
	ended   chan error
}

// Start runs a tracer and returns when it is ready.
func (tr Tracer) Start(ctx context.Context, more ...string) (*Running, error) {
	return tr.StartInto(ctx, nil, more...)
}

// StartInto lets it write to a pipe, which it closes here, instead of a file: what makes
// it ready must be on standard error then.
func (tr Tracer) StartInto(ctx context.Context, stdout *os.File, more ...string) (_ *Running, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	r := &Running{dir: dir, piped: stdout != nil, ended: make(chan error, 1)}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if stdout == nil {
		if stdout, err = os.Create(r.Stdout()); err != nil {
			return nil, err
		}
	}
	defer stdout.Close()
	stderr, err := os.Create(r.stderr())
	if err != nil {
		return nil, err
	}
	defer stderr.Close()

	r.cmd = exec.CommandContext(ctx, tr.Argv[0], append(tr.Argv[1:len(tr.Argv):len(tr.Argv)], more...)...)
	r.cmd.Stdout, r.cmd.Stderr = stdout, stderr
	begin := time.Now()
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", tr.Name, err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	for deadline := begin.Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		if contains(r.Stdout(), tr.Ready) || contains(r.stderr(), tr.Ready) {
			r.ToReady = time.Since(begin)
			if tr.AnyCPU {
				return r, nil
			}
			return r, cpu.PinProcess(r.cmd.Process.Pid, cpu.Reader)
		}
		select {
		case err := <-r.ended:
			return nil, fmt.Errorf("start %s: it ended (%w):\n%s", tr.Name, err, r.output())
		default:
		}
		if time.Now().After(deadline) {
			r.kill()
			return nil, fmt.Errorf("start %s: not ready after %s:\n%s", tr.Name, startTimeout, r.output())
		}
	}
}

func (r *Running) Stdout() string { return filepath.Join(r.dir, "stdout") }
func (r *Running) stderr() string { return filepath.Join(r.dir, "stderr") }

func (r *Running) output() []byte {
	out, _ := os.ReadFile(r.Stdout())
	diagnosis, _ := os.ReadFile(r.stderr())
	return append(diagnosis, out...)
}

func contains(path, text string) bool {
	content, err := os.ReadFile(path)
	return err == nil && bytes.Contains(content, []byte(text))
}

// stopTimeout is how long a tracer may take to detach and print its summary.
const stopTimeout = 60 * time.Second

// ErrStuck is a tracer that did not end when interrupted. bpftrace 0.17 has been
// seen to do that, once in some fifty times.
var ErrStuck = errors.New("tracer did not end when interrupted")

// Stop interrupts the tracer as Ctrl-C does and gives everything it wrote to
// standard output.
func (r *Running) Stop() ([]byte, error) {
	defer os.RemoveAll(r.dir)
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return nil, fmt.Errorf("interrupt tracer: %w", err)
	}
	select {
	case err := <-r.ended:
		if err != nil {
			return nil, fmt.Errorf("tracer %s: %w:\n%s", r.cmd.Args[0], err, r.output())
		}
	case <-time.After(stopTimeout):
		stack, _ := os.ReadFile(r.proc("stack")) // where it sits in the kernel, if root may know
		r.kill()
		return nil, fmt.Errorf("%w; it was in:\n%s", ErrStuck, stack)
	}
	if r.piped {
		return nil, nil
	}
	return os.ReadFile(r.Stdout())
}

// kill ends a tracer that does not listen to anything else.
func (r *Running) kill() {
	_ = r.cmd.Process.Kill()
	//nolint:errcheck // how it ends is known
	<-r.ended
}

// Idle waits until the tracer has done with what it was told: its processor time
// stands still.
func (r *Running) Idle() {
	const step, enough = 50 * time.Millisecond, 2
	still, before := 0, r.CPUTime()
	for deadline := time.Now().Add(10 * time.Second); still < enough && time.Now().Before(deadline); {
		time.Sleep(step)
		now := r.CPUTime()
		// One tick in 50 ms is what a timer or two cost.
		if now-before <= 1 {
			still++
		} else {
			still = 0
		}
		before = now
	}
}

// CPUTime is what the tracer has used, in ticks of USER_HZ.
func (r *Running) CPUTime() int { return CPUTime(r.cmd.Process.Pid) }

// CPUTime is what a process has used, in ticks of USER_HZ; 0 where there is none.
func CPUTime(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user + system
}

// Memory is the tracer's peak of resident memory and what its BPF maps and
// programs take in the kernel, in bytes.
func (r *Running) Memory() (resident, kernel uint64, err error) {
	status, err := os.ReadFile(r.proc("status"))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory of tracer: %w", err)
	}
	resident, _ = numberAfter(status, "VmHWM:")
	resident *= 1024
	objects := make(map[string]uint64) // an object can have several descriptors
	err = r.fdinfo(func(info []byte) {
		bytes, ok := numberAfter(info, "memlock:")
		for _, kind := range []string{"map_id:", "prog_id:"} {
			if id, is := numberAfter(info, kind); is && ok {
				objects[kind+strconv.FormatUint(id, 10)] = bytes
			}
		}
	})
	for _, bytes := range objects {
		kernel += bytes
	}
	return resident, kernel, err
}

// ProgramIDs lists the BPF programs that the tracer holds.
func (r *Running) ProgramIDs() (ids []ebpf.ProgramID, err error) {
	numbers, err := r.numbers("prog_id:")
	for _, n := range numbers {
		ids = append(ids, ebpf.ProgramID(n))
	}
	return ids, err
}

func (r *Running) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(r.cmd.Process.Pid), name)
}

// fdinfo calls f with what the kernel tells of each descriptor of the tracer's.
func (r *Running) fdinfo(f func(info []byte)) error {
	files, err := os.ReadDir(r.proc("fdinfo"))
	if err != nil {
		return fmt.Errorf("read files of tracer: %w", err)
	}
	for _, file := range files {
		if info, err := os.ReadFile(r.proc("fdinfo/" + file.Name())); err == nil { // or it is closed by now
			f(info)
		}
	}
	return nil
}

// numberAfter reads the number of a "key:  number" line.
func numberAfter(text []byte, key string) (n uint64, ok bool) {
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, key); found {
			number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
			n, err := strconv.ParseUint(number, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// Abandon ends a tracer after an error.
func (r *Running) Abandon() error {
	_, err := r.Stop()
	return err
}
