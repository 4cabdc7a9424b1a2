// SPDX-License-Identifier: Apache-2.0

package main

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
)

// tracer is a program that says why handshakes were dropped, as its user would
// start it, its output going to a file.
type tracer struct {
	name  string
	argv  []string
	ready string // printed, to either stream, once it watches
	// flood reads the output of a flood: records so far, and drops that the
	// output accounts for, those it tells of only by number included.
	flood func(out []byte) (printed, counted int)
	// floodArgs are further arguments for a flood.
	floodArgs []string
	// throughputOnly is one that tells nothing: only what it takes is of interest.
	throughputOnly bool
	// anyCPU leaves the tracer where the kernel puts it.
	anyCPU bool
}

// Names of the tracers in results.
const (
	synspyName    = "synspy"
	synspyAllName = "synspy_rate_0"
	peerName      = "peer"
	emptyName     = "empty"
)

// tracers gives those that can be run: bpftrace and its script may be missing, and not
// every kernel lets the empty program attach.
func (c config) tracers() []tracer {
	port := strconv.Itoa(int(c.port))
	trace := []string{c.synspy, "trace", "--port", port}
	const ready = "synspy: watching on"
	all := []tracer{
		// Drops are counted from JSON, which is more work for synspy than the table.
		{name: synspyName, argv: trace, ready: ready, flood: readJSON, floodArgs: []string{"-o", "json"}},
		{name: synspyAllName, argv: append(trace[:len(trace):len(trace)], "--rate", "0"), ready: ready, flood: readJSON, floodArgs: []string{"-o", "json"}},
	}
	if c.peer != "" {
		all = append(all, tracer{name: peerName, argv: []string{"bpftrace", c.peer}, ready: "READY", flood: readScript})
	}
	if c.empty != "" {
		all = append(all, tracer{name: emptyName, argv: []string{c.empty, "empty"}, ready: "READY", throughputOnly: true})
	}
	return all
}

// startTimeout is how long a tracer may take to become ready, emulated.
const startTimeout = 90 * time.Second

// running is a tracer that watches.
type running struct {
	cmd     *exec.Cmd
	dir     string
	toReady time.Duration // from exec
	piped   bool          // its output is someone else's to read
	ended   chan error
}

// start runs a tracer and returns when it is ready.
func (tr tracer) start(ctx context.Context, more ...string) (*running, error) {
	return tr.startInto(ctx, nil, more...)
}

// startInto lets it write to a pipe, which it closes here, instead of a file: what makes
// it ready must be on standard error then.
func (tr tracer) startInto(ctx context.Context, stdout *os.File, more ...string) (_ *running, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	r := &running{dir: dir, piped: stdout != nil, ended: make(chan error, 1)}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if stdout == nil {
		if stdout, err = os.Create(r.stdout()); err != nil {
			return nil, err
		}
	}
	defer stdout.Close()
	stderr, err := os.Create(r.stderr())
	if err != nil {
		return nil, err
	}
	defer stderr.Close()

	r.cmd = exec.CommandContext(ctx, tr.argv[0], append(tr.argv[1:len(tr.argv):len(tr.argv)], more...)...)
	r.cmd.Stdout, r.cmd.Stderr = stdout, stderr
	begin := time.Now()
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", tr.name, err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	for deadline := begin.Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		if contains(r.stdout(), tr.ready) || contains(r.stderr(), tr.ready) {
			r.toReady = time.Since(begin)
			if tr.anyCPU {
				return r, nil
			}
			return r, pinProcess(r.cmd.Process.Pid, readerCPU)
		}
		select {
		case err := <-r.ended:
			return nil, fmt.Errorf("start %s: it ended (%w):\n%s", tr.name, err, r.output())
		default:
		}
		if time.Now().After(deadline) {
			r.kill()
			return nil, fmt.Errorf("start %s: not ready after %s:\n%s", tr.name, startTimeout, r.output())
		}
	}
}

func (r *running) stdout() string { return filepath.Join(r.dir, "stdout") }
func (r *running) stderr() string { return filepath.Join(r.dir, "stderr") }

func (r *running) output() []byte {
	out, _ := os.ReadFile(r.stdout())
	diagnosis, _ := os.ReadFile(r.stderr())
	return append(diagnosis, out...)
}

func contains(path, text string) bool {
	content, err := os.ReadFile(path)
	return err == nil && bytes.Contains(content, []byte(text))
}

// stopTimeout is how long a tracer may take to detach and print its summary.
const stopTimeout = 60 * time.Second

// errStuck is a tracer that did not end when interrupted. bpftrace 0.17 has been
// seen to do that, once in some fifty times.
var errStuck = errors.New("tracer did not end when interrupted")

// stop interrupts the tracer as Ctrl-C does and gives everything it wrote to
// standard output.
func (r *running) stop() ([]byte, error) {
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
		return nil, fmt.Errorf("%w; it was in:\n%s", errStuck, stack)
	}
	if r.piped {
		return nil, nil
	}
	return os.ReadFile(r.stdout())
}

// kill ends a tracer that does not listen to anything else.
func (r *running) kill() {
	_ = r.cmd.Process.Kill()
	//nolint:errcheck // how it ends is known
	<-r.ended
}

// idle waits until the tracer has done with what it was told: its processor time
// stands still.
func (r *running) idle() {
	const step, enough = 50 * time.Millisecond, 2
	still, before := 0, r.cpuTime()
	for deadline := time.Now().Add(10 * time.Second); still < enough && time.Now().Before(deadline); {
		time.Sleep(step)
		now := r.cpuTime()
		// One tick in 50 ms is what a timer or two cost.
		if now-before <= 1 {
			still++
		} else {
			still = 0
		}
		before = now
	}
}

// cpuTime is what the tracer has used, in ticks of USER_HZ.
func (r *running) cpuTime() int { return cpuTime(r.cmd.Process.Pid) }

// cpuTime is what a process has used, in ticks of USER_HZ; 0 where there is none.
func cpuTime(pid int) int {
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

// memory is the tracer's peak of resident memory and what its BPF maps and
// programs take in the kernel, in bytes.
func (r *running) memory() (resident, kernel uint64, err error) {
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

// programIDs lists the BPF programs that the tracer holds.
func (r *running) programIDs() (ids []ebpf.ProgramID, err error) {
	numbers, err := r.numbers("prog_id:")
	for _, n := range numbers {
		ids = append(ids, ebpf.ProgramID(n))
	}
	return ids, err
}

func (r *running) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(r.cmd.Process.Pid), name)
}

// fdinfo calls f with what the kernel tells of each descriptor of the tracer's.
func (r *running) fdinfo(f func(info []byte)) error {
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
