// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/test/schema"
)

// kernelTypes is where the kernel keeps its own type information.
const kernelTypes = "/sys/kernel/btf/vmlinux"

// typesWithout writes this kernel's type information with other names, as long, in the
// place of these: a field, function, tracepoint or enumerator that is not there.
func typesWithout(t *testing.T, names ...string) string {
	t.Helper()
	types, err := os.ReadFile(kernelTypes)
	must(t, err)
	for _, name := range names {
		whole := []byte("\x00" + name + "\x00")
		at := bytes.Index(types, whole)
		if at < 0 {
			t.Fatalf("this kernel's types do not name %s", name)
		}
		types[at+1] = 'X'
	}
	file := filepath.Join(t.TempDir(), "btf")
	must(t, os.WriteFile(file, types, 0o644))
	return file
}

// withBackend adds the backend that was asked for.
func withBackend(args ...string) []string {
	if backend := os.Getenv("SYNSPY_BACKEND"); backend != "" {
		args = append(args, "--backend", backend)
	}
	return args
}

// once runs synspy to its end.
func once(t *testing.T, args ...string) (stdout []byte, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.Bytes(), said.String(), cmd.ProcessState.ExitCode()
}

// blind is what a hook of the ready record does not tell.
type blind struct{ Cause, Stage, Part, Shows string }

// checked is a record of synspy check, or a hook of a ready record.
type checked struct {
	Type, Name, Status, Detail, Remedy, Note string
	Attached                                 *bool
	blind
}

func checks(t *testing.T, text []byte) (all []checked) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var c checked
		must(t, json.Unmarshal(line, &c))
		if c.Type != "check" {
			t.Errorf("record of type %q: %s", c.Type, line)
		}
		all = append(all, c)
	}
	return all
}

// TestNeededTypeMissing: without what no plan can do without, synspy says what that
// is and what to do.
func TestNeededTypeMissing(t *testing.T) {
	for _, test := range []struct{ missing, said, backend string }{
		{"sk_ack_backlog", "struct sock.sk_ack_backlog", ""},
		{"sk_reuseport_cb", "struct sock.sk_reuseport_cb", ""},
		{"skc_cookie", "struct sock.__sk_common.skc_cookie", ""},
		{"pptrs", "struct bpf_array.pptrs", ""},
		{"linux_mib", "struct linux_mib", ""},
		{"LINUX_MIB_LISTENOVERFLOWS", "LINUX_MIB_LISTENOVERFLOWS", ""},
		{"btf_trace_kfree_skb", "tracepoint kfree_skb", "tracepoint"},
		{"btf_trace_inet_sock_set_state", "tracepoint inet_sock_set_state", "tracepoint"},
	} {
		t.Run(test.missing, func(t *testing.T) {
			args := withBackend("--btf", typesWithout(t, test.missing))
			if test.backend != "" {
				args = append(args, "--backend", test.backend)
			}
			for _, command := range []string{"trace", "check"} {
				stdout, stderr, code := once(t,
					append([]string{command, "-o", "json"}, args...)...)
				if code != 3 || !strings.Contains(stderr, test.said) ||
					!strings.Contains(stderr,
						"not in the kernel's type information") ||
					!strings.Contains(stderr,
						"--btf must hold the types of this very kernel") {
					t.Errorf("%s: exit code %d, it said:\n%s", command, code,
						stderr)
				}
				for _, raw := range []string{"unknown#", "line(s) omitted", "R1",
					"CO-RE", "goroutine"} {
					if strings.Contains(stderr, raw) {
						t.Errorf("%s says %q:\n%s", command, raw, stderr)
					}
				}
				if command == "trace" && len(stdout) > 0 {
					t.Errorf("it wrote:\n%s", stdout)
				}
				if command == "check" &&
					!slices.ContainsFunc(checks(t, stdout),
						func(c checked) bool {
							return c.Name == "trace" && c.Status == "missing"
						}) {
					t.Errorf("check says that a trace can run:\n%s", stdout)
				}
			}
		})
	}
}

// TestTypeMissing: what a plan can do without is named by check and by the ready
// record, and the rest works and balances.
func TestTypeMissing(t *testing.T) {
	for _, test := range []struct {
		missing string
		said    string  // by the note of a hook that is not attached; empty: none is missing
		blind   []blind // besides what is not told anyway
	}{
		{"rsk_timer", "struct request_sock.rsk_timer",
			[]blind{{"handshake_expired", "timer", "", "nothing"},
				{"listener_closed", "timer", "", "nothing"}}},
		{"inet_sport", "struct inet_sock.inet_sport",
			[]blind{{"listener_closed", "close", "", "nothing"}}},
		{"btf_trace_tcp_send_reset", "not in the kernel's type information",
			[]blind{{"listener_closed", "close", "", "nothing"}}},
		{"btf_trace_timer_cancel", "not in the kernel's type information",
			[]blind{{"listener_closed", "ack", "", "nothing"},
				{"bad_handshake_ack", "ack", "that no handshake waits for",
					"kernel_other"}}},
		{"start_boottime",
			"struct task_struct.start_boottime, which is not in the kernel's type information; holders are read from /proc", nil},
		{"bpf_iter_task_file", "holders are read from /proc", nil},
		{"IPSTATS_MIB_OUTNOROUTES", "", []blind{{"no_route_back", "", "", "kernel_other"}}},
		{"SKB_DROP_REASON_NO_SOCKET", "",
			[]blind{{"no_listener", "ingress", "", "kernel_other"}}},
		{"net_cookie", "", nil},
		{"sk_ino", "", nil},
		{"bpf_rdonly_cast", "", nil},
		{"bpf_sock_from_file", "", nil},
		{"bpf_get_socket_ptr_cookie", "", nil},
	} {
		t.Run(test.missing, func(t *testing.T) {
			types := typesWithout(t, test.missing)
			stdout, stderr, code := once(t,
				withBackend("check", "-o", "json", "--btf", types)...)
			if code != 0 || stderr != "" {
				t.Fatalf("check: exit code %d, it said:\n%s", code, stderr)
			}
			report := checks(t, stdout)
			said := slices.ContainsFunc(report, func(c checked) bool {
				return c.Attached != nil && !*c.Attached &&
					strings.Contains(c.Note, test.said)
			})
			if test.said != "" && !said {
				t.Errorf("no hook that is not attached says %q:\n%s", test.said,
					stdout)
			}
			for _, want := range test.blind {
				if !slices.ContainsFunc(report, func(c checked) bool {
					return c.Name == "cause" && c.Status == "missing" &&
						c.Detail != "" && c.blind == want
				}) {
					t.Errorf("check does not say %+v:\n%s", want, stdout)
				}
			}

			w := newWorld(t)
			tr := start(t, "--netns", w.Path(), "--btf", types)
			server := startServer(t, w, "degraded",
				server.ListenConfig{Addr: anyAddr(port), Backlog: 3})
			fill(t, w, server4, 3)
			loseSYNs(t, w, server4, 5)
			a := tr.stop()
			drops := a.overflows(w.NetNS())
			if len(drops) != 5 {
				t.Errorf("%d records of a full accept queue, want 5", len(drops))
			}
			for _, r := range drops {
				if !slices.Equal(r.pids(), []int{server.PID}) ||
					r.Listener.Inode == 0 {
					t.Errorf("listener %+v of %+v", r.Listener, r.Processes)
				}
			}
			a.wantRow(w.NetNS(), "ListenOverflows", 5, 0)
			a.wantRow(w.NetNS(), "ListenDrops", 5, 0)
		})
	}
}

// TestShownAs plays what cannot be told without something: it shows as the ready
// record says it does, and as nothing else.
func TestShownAs(t *testing.T) {
	const reason = "SKB_DROP_REASON_"
	for _, test := range []struct {
		missing  string
		scenario string
		cause    string
		stage    string
		records  int // of the cause, where only part of it is not told
	}{
		{reason + "NO_SOCKET", "no-listener", "no_listener", "ingress", 0},
		{reason + "IP_RPFILTER", "rp-filter", "rp_filter", "ingress", 0},
		{reason + "NETFILTER_DROP", "netfilter-drop", "netfilter", "ingress", 0},
		{reason + "CPU_BACKLOG", "cpu-backlog", "cpu_backlog", "ingress", 0},
		{reason + "IP_CSUM", "checksum", "checksum", "ingress", 2},
		{reason + "TCP_CSUM", "checksum", "checksum", "ingress", 1},
		{reason + "TCP_MINTTL", "policy", "policy", "ingress", 0},
		{reason + "TCP_FLAGS", "bad-syn", "bad_syn", "syn", 3},
		{"skb_drop_reason", "policy", "policy", "ingress", 0},
		{"skb_drop_reason", "rp-filter", "rp_filter", "ingress", 0},
		{"skb_drop_reason", "auth-failed", "auth_failed", "syn", 0},
		{"skb_drop_reason", "socket-filter", "socket_filter", "ack", 0},
		{"IPSTATS_MIB_OUTNOROUTES", "no-route-back", "no_route_back", "", 0},
		{"btf_trace_tcp_send_reset", "listener-closed", "listener_closed", "close", 4},
		{"btf_trace_timer_cancel", "listener-closed", "listener_closed", "ack", 6},
		{"btf_trace_timer_cancel", "bad-handshake-ack-reset", "bad_handshake_ack", "ack",
			2},
		{"rsk_timer", "handshake-expired", "handshake_expired", "timer", 0},
	} {
		t.Run(test.missing+"/"+test.scenario, func(t *testing.T) {
			stdout, stderr, code := once(t,
				withBackend("lab", "run", test.scenario, "-o", "json", "--btf",
					typesWithout(t, test.missing))...)
			if code > 1 && code != 3 {
				t.Fatalf("exit code %d, it said:\n%s", code, stderr)
			}
			var (
				told      []blind
				got       = make(map[string]int)
				unmatched []string
				verdict   struct {
					Expected, Recorded []count
					Summary            struct{ Balanced bool }
				}
			)
			for line := range bytes.Lines(stdout) {
				var r struct {
					Type  string
					Hooks []struct{ Blind []blind }
				}
				must(t, json.Unmarshal(line, &r))
				must(t, schema.Check(line))
				for _, hook := range r.Hooks {
					told = append(told, hook.Blind...)
				}
				if r.Type == "scenario" {
					must(t, json.Unmarshal(line, &verdict))
				}
			}
			if !verdict.Summary.Balanced {
				t.Errorf("the ledger does not balance:\n%s", stdout)
			}
			at := slices.IndexFunc(told, func(b blind) bool {
				return b.Cause == test.cause && b.Stage == test.stage
			})
			if at < 0 {
				t.Fatalf("nothing says that %s at %s cannot be told: %+v",
					test.cause, test.stage, told)
			}
			shows := told[at].Shows
			for _, c := range verdict.Recorded {
				got[c.Cause] += c.Count
				if c.Cause != shows && c.Cause != test.cause {
					unmatched = append(unmatched, c.Cause)
				}
			}
			if got[test.cause] != test.records || unmatched != nil ||
				(shows == "nothing") != (got[shows] == 0 &&
					got["kernel_other"] == 0) {
				t.Errorf("want %d records of %s and the rest as %s, got %v",
					test.records, test.cause, shows, got)
			}
		})
	}
}
