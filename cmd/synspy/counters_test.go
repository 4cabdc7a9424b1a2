// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/test/schema"
)

// countersRecord is a record of synspy counters -o json.
type countersRecord struct {
	V        int      `json:"v"`
	Type     string   `json:"type"`
	NetNS    uint64   `json:"netns"`
	PIDs     []uint32 `json:"pids"`
	Counters []struct {
		Name    string   `json:"name"`
		Value   uint64   `json:"value"`
		Delta   *uint64  `json:"delta"`
		Rate    *float64 `json:"rate"`
		Shared  *bool    `json:"shared"`
		Meaning string   `json:"meaning"`
	} `json:"counters"`
}

func decodeCounters(t *testing.T, text string) []countersRecord {
	t.Helper()
	var list []countersRecord
	for line := range strings.Lines(text) {
		var c countersRecord
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("decode %q: %v", line, err)
		}
		if err := schema.Check([]byte(line)); err != nil {
			t.Error(err)
		}
		if c.V != 1 || c.Type != "counters" || c.NetNS == 0 {
			t.Errorf("not a record of version 1: %s", line)
		}
		for _, v := range c.Counters {
			if v.Meaning == "" || v.Shared == nil {
				t.Errorf("%s does not say what it is", v.Name)
			}
		}
		list = append(list, c)
	}
	return list
}

// TestCounters agrees with /proc about a namespace that drops, also where several
// processes are in it.
func TestCounters(t *testing.T) {
	netns := dropping(t)
	inode, err := strconv.ParseUint(netns, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"counters", "--netns", netns, "-o", "json"},
		plainEnv(&stdout, &stderr)); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr.String())
	}
	list := decodeCounters(t, stdout.String())
	if len(list) != 1 || list[0].NetNS != inode || len(list[0].PIDs) == 0 {
		t.Fatalf("got %+v", list)
	}
	after, err := kernel.NewSNMPReader().Read("/proc", list[0].PIDs[0], inode)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]uint64)
	for _, v := range list[0].Counters {
		values[v.Name] = v.Value
		if v.Delta != nil || v.Rate != nil || v.Value == 0 {
			t.Errorf("%+v is not of one reading, without zeros", v)
		}
	}
	if n := values["ListenOverflows"]; n == 0 || n != values["ListenDrops"] ||
		n > after["ListenOverflows"] {
		t.Errorf("counted %d overflows and %d drops, the kernel %d", n,
			values["ListenDrops"], after["ListenOverflows"])
	}
	// Every namespace there is, once each.
	stdout.Reset()
	if code := run(t.Context(), []string{"counters", "--all", "-o", "json"},
		plainEnv(&stdout, &stderr)); code != 0 {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr.String())
	}
	seen := make(map[uint64]int)
	for _, c := range decodeCounters(t, stdout.String()) {
		seen[c.NetNS]++
		if len(c.PIDs) > 8 || len(c.Counters) < 20 {
			t.Errorf("%d processes, %d counters", len(c.PIDs), len(c.Counters))
		}
	}
	own, err := kernel.Inode("/proc/self/ns/net")
	if err != nil || seen[own] != 1 || seen[inode] != 1 {
		t.Errorf("own namespace %d times, the other one %d times, %v", seen[own],
			seen[inode], err)
	}
}

// TestCountersWatch shows what moves, interval by interval.
func TestCountersWatch(t *testing.T) {
	t.Parallel()
	netns := dropping(t)
	stdout, stderr,
		code := output(t, exec.Command(program, "counters", "--netns", netns, "--watch",
		"--interval", "200ms",
		"--count", "4", "-o", "json"))
	if code != 0 || !strings.Contains(stderr, "counters moved in ") {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr)
	}
	list := decodeCounters(t, stdout)
	if len(list) != 4 {
		t.Fatalf("%d records of 4 intervals", len(list))
	}
	last := make(map[string]uint64)
	for _, c := range list {
		for _, v := range c.Counters {
			if v.Delta == nil || *v.Delta == 0 || v.Rate == nil || *v.Rate <= 0 {
				t.Fatalf("%+v did not move", v)
			}
			if was, ok := last[v.Name]; ok && was+*v.Delta != v.Value {
				t.Errorf("%s was %d, moved by %d, and is %d", v.Name, was, *v.Delta,
					v.Value)
			}
			last[v.Name] = v.Value
		}
	}
	if last["ListenOverflows"] == 0 {
		t.Error("no overflows")
	}
}

// TestCountersInterrupted ends as a stream does, with what moved last.
func TestCountersInterrupted(t *testing.T) {
	t.Parallel()
	p := start(t, "counters", "--netns", dropping(t), "--watch", "--interval", "100ms")
	text := p.line() + p.line()
	if !strings.Contains(text, "ListenOverflows") {
		t.Errorf("got:\n%s", text)
	}
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, code := p.exit()
	if code != 0 ||
		!strings.Contains(text+rest, "a SYN or a handshake's last ACK met a listener") {
		t.Errorf("exit code %d, output:\n%s%s", code, text, rest)
	}
}

// TestCountersVanished: a namespace ends while it is watched.
func TestCountersVanished(t *testing.T) {
	t.Parallel()
	child := exec.Command("unshare", "--net", "sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = child.Process.Kill(), child.Wait() }()
	own, err := kernel.Inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(child.Process.Pid)
	for { // until it has its own
		if inode, err := kernel.Inode("/proc/" + pid + "/ns/net"); err == nil &&
			inode != own {
			break
		}
	}
	one := start(t, "counters", "--netns", pid, "--watch", "--interval", "50ms", "--all", "-o",
		"json")
	all := start(t, "counters", "--watch", "--interval", "50ms", "--all", "-o", "json")
	one.line()
	all.line()
	_, _ = child.Process.Kill(), child.Wait()
	if _, code := one.exit(); code != 0 || !strings.Contains(one.stderr.String(), "is gone\n") {
		t.Errorf("exit code %d, standard error:\n%s", code, one.stderr.String())
	}
	for range 20 {
		all.line()
	}
	if err := all.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, code := all.exit(); code != 0 || strings.Count(all.stderr.String(), "\n") > 3 {
		t.Errorf("exit code %d, standard error:\n%s", code, all.stderr.String())
	}
}

// TestCountersAsNobody shows what it may, and says what it may not and what would
// help.
func TestCountersAsNobody(t *testing.T) {
	netns := dropping(t)
	for _, format := range []string{"table", "json"} {
		stdout, stderr, code := as(t, nil, "counters", "--all", "-o", format)
		if code != 0 || !strings.Contains(stdout, "ListenDrops") ||
			strings.Contains(stdout, netns) {
			t.Errorf("exit code %d, output:\n%s", code, stdout)
		}
		if !strings.Contains(stderr, "not shown: ") ||
			!strings.Contains(stderr, "CAP_SYS_PTRACE: run it with sudo") {
			t.Errorf("standard error:\n%s", stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"counters", "--netns", netns, "-o", "json"},
		plainEnv(&stdout, &stderr)); code != 0 {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr.String())
	}
	pid := strconv.FormatUint(uint64(decodeCounters(t, stdout.String())[0].PIDs[0]), 10)
	if _, stderr, code := as(t, nil, "counters", "--netns", pid); code != 3 ||
		!strings.Contains(stderr, "CAP_SYS_PTRACE") ||
		strings.Contains(stderr, "CAP_BPF") {
		t.Errorf("exit code %d, want 3; standard error:\n%s", code, stderr)
	}
}
