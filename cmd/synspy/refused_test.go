// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/incident"
	"github.com/synspy/synspy/internal/lab/world"
)

// playIncident plays one of the lab's until the test ends, and returns its network namespace.
func playIncident(t *testing.T, name string) (netns uint64) {
	t.Helper()
	made, ok := incident.Find(name)
	if !ok {
		t.Fatalf("no incident %s", name)
	}
	w, err := world.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	traffic, err := made.Begin(t.Context(), w, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- traffic(ctx) }()
	t.Cleanup(func() { // the context has ended
		_, _ = <-done, w.Close()
	})
	return w.NetNS()
}

// TestRefusedEvidence diagnoses an accept loop that sleeps, with as many capabilities as it takes
// and with one less each time.
func TestRefusedEvidence(t *testing.T) {
	t.Parallel()
	enough := []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYSLOG, unix.CAP_SYS_PTRACE,
		unix.CAP_DAC_READ_SEARCH}
	without := func(bit uintptr) (list []uintptr) {
		for _, c := range enough {
			if c != bit {
				list = append(list, c)
			}
		}
		return list
	}
	netns := playIncident(t, "diagnose-blocked")
	for _, tt := range []struct {
		lost string
		has  []uintptr
	}{
		{"", enough},
		{"CAP_SYS_PTRACE", without(unix.CAP_SYS_PTRACE)},
		{"CAP_DAC_READ_SEARCH", without(unix.CAP_DAC_READ_SEARCH)},
	} {
		t.Run(tt.lost, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := as(t, tt.has, "diagnose", "--port", "8080",
				"--duration", "6s", "-o", "json")
			var d event.Diagnosis
			if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 0 {
				t.Fatalf("exit code %d, %v, standard error:\n%s", code, err, stderr)
			}
			i := slices.IndexFunc(d.Findings, func(f event.Finding) bool {
				return f.Listener != nil && f.Listener.NetNS == netns
			})
			if i < 0 {
				t.Fatalf("no finding: %s", d.Verdict) // to name a namespace by its inode takes CAP_SYS_PTRACE, so other tests' may be here
			}
			f := d.Findings[i]
			if tt.lost == "" {
				if f.ID != event.FindingAcceptLoopBlocked ||
					f.Confidence == event.ConfidencePossible ||
					strings.Contains(f.Settles, "CAP_") {
					t.Errorf("%s, %s: %s", f.ID, f.Confidence, d.Verdict)
				}
				return
			}
			if f.Confidence != event.ConfidencePossible ||
				!strings.Contains(f.Settles, tt.lost) {
				t.Errorf("%s, %s, settled by %q: %s", f.ID, f.Confidence, f.Settles,
					d.Verdict)
			}
			for _, c := range d.Cannot {
				if strings.Contains(strings.Join(c.Takes, " "), tt.lost) &&
					len(c.Findings) > 0 {
					return
				}
			}
			t.Errorf("nothing that takes %s among what could not be told: %+v", tt.lost,
				d.Cannot)
		})
	}
}

// TestListenersRefused lists sockets of another user's processes in another namespace, with less
// and less allowed. Each refusal is told by what it takes.
func TestListenersRefused(t *testing.T) {
	t.Parallel()
	dropping(t)
	for _, tt := range []struct {
		has       []uintptr
		say, dont []string
	}{
		{nil, []string{"take CAP_SYS_PTRACE"}, nil},
		{[]uintptr{unix.CAP_SYS_PTRACE},
			[]string{"could not be asked what they hold: owners may be missing\n  other users' processes take CAP_DAC_READ_SEARCH", "takes CAP_SYS_ADMIN"},
			[]string{"CAP_SYS_PTRACE"}},
		{[]uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN},
			[]string{"could not be seen", "that takes CAP_DAC_READ_SEARCH"},
			[]string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}},
		{[]uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN,
			unix.CAP_DAC_READ_SEARCH}, nil, []string{"CAP_"}},
	} {
		_, stderr, code := as(t, tt.has, "listeners")
		if code != 0 {
			t.Errorf("with %v: exit code %d", tt.has, code)
		}
		for _, want := range tt.say {
			if !strings.Contains(stderr, want) {
				t.Errorf("with %v it does not say %q:\n%s", tt.has, want, stderr)
			}
		}
		for _, text := range tt.dont {
			if strings.Contains(stderr, text) {
				t.Errorf("with %v it says %q:\n%s", tt.has, text, stderr)
			}
		}
	}
}

// TestLimits runs into limits that no privileges lift: each is told by its name, not as a lack of
// the kernel's or a fault of synspy's.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script, want string
	}{
		{`ulimit -n 8; exec "$0" trace`, "RLIMIT_NOFILE for synspy (now 8"},
		{`ulimit -n 30; exec "$0" trace`, "RLIMIT_NOFILE for synspy (now 30"},
		{`ulimit -n 60; exec "$0" trace`, "RLIMIT_NOFILE for synspy (now 60"},
		{`ulimit -n 60; exec "$0" check`, "RLIMIT_NOFILE for synspy (now 60"},
		{`ulimit -n 110; exec "$0" diagnose --duration 1s`, "RLIMIT_NOFILE for synspy (now 110"},
	} {
		_, stderr, code := output(t, exec.Command("sh", "-c", tt.script, program))
		if code != 3 || !strings.Contains(stderr, tt.want) ||
			strings.Contains(stderr, "fault of synspy") ||
			strings.Contains(stderr, "CAP_") {
			t.Errorf("%s: exit code %d, standard error:\n%s", tt.script, code, stderr)
		}
	}
	_, stderr, code := as(t, []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}, "trace", "--backend",
		"tracepoint", "--port", "1", "--duration", "1ms")
	if code != 3 || !strings.Contains(stderr, "missing CAP_SYSLOG") ||
		strings.Contains(stderr, "missing CAP_BPF") {
		t.Errorf("without CAP_SYSLOG: exit code %d, standard error:\n%s", code, stderr)
	}
}

// TestUnseenProcesses looks from a PID namespace of its own, and from below a /proc that hides
// other users' processes.
func TestUnseenProcesses(t *testing.T) {
	t.Parallel()
	netns := playIncident(t, "diagnose-blocked")
	const drop = `exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all,+bpf,+perfmon,+syslog --ambient-caps -all,+bpf,+perfmon,+syslog "$0" `
	for _, tt := range []struct {
		name, before, takes string
	}{
		{"namespace", `exec unshare -p -f -m --mount-proc "$0" `, "hostPID"},
		{"hidepid=1", `mount -t proc -o hidepid=1 proc /proc && ` + drop, "hidepid="},
		{"hidepid=2", `mount -t proc -o hidepid=2 proc /proc && ` + drop, "hidepid="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synspy := func(args string) (stdout, stderr string, code int) {
				return output(t,
					exec.Command("unshare", "-m", "sh", "-c", tt.before+args,
						program))
			}
			stdout, stderr, code := synspy("diagnose --port 8080 --duration 6s -o json")
			var d event.Diagnosis
			if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 0 {
				t.Fatalf("exit code %d, %v, standard error:\n%s", code, err, stderr)
			}
			i := slices.IndexFunc(d.Findings, func(f event.Finding) bool {
				return f.Listener != nil && f.Listener.NetNS == netns
			})
			if i < 0 {
				t.Fatalf("no finding: %s", d.Verdict)
			}
			if f := d.Findings[i]; f.Confidence != event.ConfidencePossible ||
				!strings.Contains(f.Settles, tt.takes) {
				t.Errorf("%s, %s, settled by %q: %s", f.ID, f.Confidence, f.Settles,
					d.Verdict)
			}
			if _, stderr, _ := synspy("listeners"); !strings.Contains(stderr,
				"are not seen") || !strings.Contains(stderr, tt.takes) {
				t.Errorf("listeners does not say what hides processes:\n%s", stderr)
			}
			if stdout, _, _ := synspy("check -o json"); !strings.Contains(stdout, `"name":"processes","status":"refused"`) {
				t.Errorf("check does not say what hides processes:\n%s", stdout)
			}
		})
	}
}
