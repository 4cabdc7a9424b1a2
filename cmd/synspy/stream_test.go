// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSignals ends a stream while its listener drops.
func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, "trace", "--netns", dropping(t), "-o", "json")
			text := p.line() + p.line() // ready, and the first record
			if err := p.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			rest, code := p.exit()
			if code != 0 {
				t.Errorf("exit code %d, want 0; standard error:\n%s", code,
					p.stderr.String())
			}
			onlyStatus(t, p.stderr.String())
			records := decode(t, text+rest)
			last := records[len(records)-1]
			if records[0].Type != "ready" || last.Type != "summary" {
				t.Fatalf("first record %s, last %s", records[0].Type, last.Type)
			}
			if last.Balanced == nil || !*last.Balanced {
				t.Error("the ledger does not balance")
			}
			if n := ofType(records, "drop"); n == 0 || n != last.Delivered {
				t.Errorf("%d drop records, the summary says %d", n, last.Delivered)
			}
		})
	}
}

func TestInterruptedTable(t *testing.T) {
	t.Parallel()
	p := start(t, "trace", "--netns", dropping(t))
	p.line() // the header comes with the first record
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, code := p.exit()
	if code != 0 || !strings.Contains(rest, "accept_queue_full") ||
		!strings.Contains(rest, "ledger balanced") {
		t.Errorf("exit code %d, output:\n%s", code, rest)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := output(t, exec.Command(program, "trace", "--netns", dropping(t),
		"--rate", "0", "--count", "3", "-o", "json"))
	if code != 0 {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr)
	}
	records := decode(t, stdout)
	last := records[len(records)-1]
	if n := ofType(records, "drop"); n != 3 || last.Type != "summary" || last.Delivered != 3 {
		t.Errorf("%d drop records, want 3; then %+v", n, last)
	}
	balanced(t, records)
}

// balanced holds the summary to the records before it: what was counted was shown,
// or is said not to have been.
func balanced(t *testing.T, records []record) {
	t.Helper()
	last := records[len(records)-1]
	counted, told := 0, 0
	for _, c := range last.Counts {
		counted += c.Count
	}
	for _, r := range records {
		if r.Type == "suppressed" {
			told += r.Count
			if r.Limit != "count" || r.Cause != "accept_queue_full" ||
				r.Stage != "syn" || r.Action != "dropped" {
				t.Errorf("%+v does not say what was suppressed", r)
			}
		}
	}
	if told != last.Suppressed || counted != last.Delivered+last.Suppressed+last.Lost {
		t.Errorf("%d counted, %d delivered + %d suppressed + %d lost; suppressed records tell of %d", counted,
			last.Delivered, last.Suppressed, last.Lost, told)
	}
}

// TestCountUnderLoad: drops go on while the last one that was asked for is written.
func TestCountUnderLoad(t *testing.T) {
	t.Parallel()
	netns := droppingAtOnce(t, 100)
	held := 0
	for range 5 {
		stdout, stderr, code := output(t, exec.Command(program, "trace", "--netns", netns,
			"--count", "1", "-o", "json", "--rate", "0"))
		if code != 0 {
			t.Fatalf("exit code %d, standard error:\n%s", code, stderr)
		}
		records := decode(t, stdout)
		balanced(t, records)
		held += records[len(records)-1].Suppressed
	}
	if held == 0 {
		t.Error("nothing came after the first drop: this has shown nothing")
	}
}

// TestQuietClosedPipe: a reader that goes away while nothing drops.
func TestQuietClosedPipe(t *testing.T) {
	for _, args := range [][]string{{"trace", "--port", "1", "-o", "json"},
		{"counters", "--watch", "--interval", "1h"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			p := start(t, args...)
			if args[0] == "trace" {
				p.line() // ready
			}
			if err := p.pipe.Close(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if _, code := p.exit(); code != 0 {
				t.Errorf("exit code %d, want 0; standard error:\n%s", code,
					p.stderr.String())
			}
			if took := time.Since(began); took > patience/4 {
				t.Errorf("it took %v to notice", took)
			}
		})
	}
}

// TestInterruptedStart: nothing was watched, so there is no stream to end.
func TestInterruptedStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"trace", "-o", "json"},
		plainEnv(&stdout, &stderr)); code != 130 || stdout.Len() > 0 ||
		!strings.Contains(stderr.String(), "interrupted before") {
		t.Errorf("exit code %d, want 130; output %q, standard error:\n%s", code,
			stdout.String(), stderr.String())
	}
}

// TestClosedPipe is synspy trace | head -1.
func TestClosedPipe(t *testing.T) {
	for _, format := range []string{"table", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := start(t, "trace", "--netns", dropping(t), "-o", format)
			p.line()
			if err := p.pipe.Close(); err != nil {
				t.Fatal(err)
			}
			if _, code := p.exit(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			onlyStatus(t, p.stderr.String())
		})
	}
}

// TestShortOutputInClosedPipe is the same for commands that only print.
func TestShortOutputInClosedPipe(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"lab", "list"}, {"check"},
		{"counters", "--all"}} {
		read, write, err := os.Pipe()
		if err == nil {
			err = read.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, args...)
		cmd.Stdout = write
		if _, stderr, code := output(t, cmd); code != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, standard error:\n%s", args, code, stderr)
		}
		_ = write.Close() // the parent's
	}
}

// TestLabInClosedPipe tells the scenario's outcome even if nobody reads it.
func TestLabInClosedPipe(t *testing.T) {
	t.Parallel()
	p := start(t, "lab", "run", "two-ports") // which takes longer than this
	if err := p.pipe.Close(); err != nil {
		t.Fatal(err)
	}
	_, code := p.exit()
	if code != 0 || strings.Contains(p.stderr.String(), "synspy:") {
		t.Errorf("exit code %d, standard error:\n%s", code, p.stderr.String())
	}
}

// TestFullDisk must not lose records without a word.
func TestFullDisk(t *testing.T) {
	netns := dropping(t)
	for _, args := range [][]string{
		{"trace", "--netns", netns},
		{"trace", "--netns", netns, "-o", "json"},
		{"check", "-o", "json"},
		{"counters", "--all"},
		{"counters", "--all", "--watch"},
		{"lab", "run", "retransmit"},
		{"lab", "list"},
		{"version"},
	} {
		t.Run(strings.Join(args[:2-len(args)%2], " "), func(t *testing.T) {
			t.Parallel()
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer full.Close()
			cmd := exec.Command(program, args...)
			cmd.Stdout = full
			_, stderr, code := output(t, cmd)
			if code != 1 || !strings.Contains(stderr, "no space left on device") {
				t.Errorf("exit code %d, want 1; standard error:\n%s", code, stderr)
			}
		})
	}
}

// TestNoListener waits for a listener that does not come.
func TestNoListener(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := output(t, exec.Command(program, "trace", "--port", "1",
		"--duration", "1s"))
	if code != 0 || !strings.Contains(stderr, "synspy: no listener matches yet") {
		t.Errorf("exit code %d, standard error:\n%s", code, stderr)
	}
	onlyStatus(t, stderr)
	// Namespaces of other tests may take their counters along while it looks.
	if !regexp.MustCompile(`(?s)0 SYNs reached a listener.*\nledger (balanced|not checked)`).MatchString(stdout) {
		t.Errorf("no summary:\n%s", stdout)
	}
}
