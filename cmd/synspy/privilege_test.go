// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
)

// as runs synspy as nobody with these capabilities and no others.
func as(t *testing.T, capabilities []uintptr, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody, AmbientCaps: capabilities}
	return output(t, cmd)
}

// TestNobody has no privileges: bad usage is still told as such, everything else
// says what is missing and how to get it.
func TestNobody(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"trace", "--cause", "nosuch"},
		{"trace", "--netns", "1", "--duration", "-1s"},
		{"trace", "--netns", "nosuch"},
		{"trace", "--btf", "/nosuch"},
		{"trace", "-o", "pcapng", "--read", "nosuch"},
		{"trace", "--write", "/proc/nosuch"},
		{"counters", "--netns", "nosuch"},
		{"lab", "run", "nosuch"},
	} {
		if _, stderr, code := as(t, nil, args...); code != 2 {
			t.Errorf("%s: exit code %d, want 2; standard error:\n%s", args, code,
				stderr)
		}
	}
	for _, args := range [][]string{{"trace"}, {"trace", "--netns", "1"},
		{"lab", "run", "two-ports"}, {"check"}} {
		_, stderr, code := as(t, nil, args...)
		if code != 3 || !strings.HasPrefix(stderr, "synspy: unable to trace here: ") ||
			!strings.Contains(stderr, "CAP_BPF") ||
			!strings.Contains(stderr, "CAP_PERFMON") ||
			!strings.Contains(stderr, "run it with sudo") {
			t.Errorf("%s: exit code %d, want 3 and a remedy; standard error:\n%s", args,
				code, stderr)
		}
	}
	for _, args := range [][]string{{"version"}, {"lab", "list"}, {"completion", "bash"},
		{"--help"}} {
		if _, stderr, code := as(t, nil, args...); code != 0 {
			t.Errorf("%s: exit code %d, want 0; standard error:\n%s", args, code,
				stderr)
		}
	}
}

// TestCapabilities grants what is said to be needed, and nothing else.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	var needed []uintptr
	for _, c := range kernel.NeededCapabilities() {
		if !c.Optional || c.Bit == unix.CAP_SYSLOG || c.Bit == unix.CAP_SYS_PTRACE {
			needed = append(needed, uintptr(c.Bit))
		}
	}
	stdout, stderr, code := as(t, needed, "trace", "--port", "1", "--duration", "1ms")
	if code != 0 || !strings.Contains(stdout, "ledger balanced") {
		t.Errorf("exit code %d, standard error:\n%s", code, stderr)
	}
	for _, c := range []struct {
		name string
		bit  uintptr
	}{{"CAP_BPF", unix.CAP_BPF}, {"CAP_PERFMON", unix.CAP_PERFMON}} {
		var others []uintptr
		for _, bit := range needed {
			if bit != c.bit {
				others = append(others, bit)
			}
		}
		_, stderr, code := as(t, others, "trace", "--port", "1", "--duration", "1ms")
		if code != 3 || strings.Count(stderr, "missing CAP_") != 1 ||
			!strings.Contains(stderr, "missing "+c.name) {
			t.Errorf("without %s: exit code %d, standard error:\n%s", c.name, code,
				stderr)
		}
	}
}
