// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/synspy/synspy/test/schema"
)

// check is a row of synspy check -o json.
type check struct {
	V         int               `json:"v"`
	Type      string            `json:"type"`
	Name      string            `json:"name"`
	Status    string            `json:"status"`
	Remedy    string            `json:"remedy"`
	Backend   string            `json:"backend"`
	Available *bool             `json:"available"`
	Attached  *bool             `json:"attached"`
	Note      string            `json:"note"`
	Counters  map[string]uint32 `json:"counters"`
	Detail    string            `json:"detail"`
	Cause     string            `json:"cause"`
	Stage     string            `json:"stage"`
	Part      string            `json:"part"`
	Shows     string            `json:"shows"`
}

func decodeChecks(t *testing.T, text string) map[string]check {
	t.Helper()
	checks := make(map[string]check)
	for line := range strings.Lines(text) {
		var c check
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("decode %q: %v", line, err)
		}
		if err := schema.Check([]byte(line)); err != nil {
			t.Error(err)
		}
		if c.V != 1 || c.Type != "check" || c.Name == "" {
			t.Errorf("not a check of version 1 with a name: %s", line)
		}
		name := c.Name
		if name == "cause" { // what cannot be told: one for each
			name = strings.TrimSpace(
				strings.Join([]string{c.Name, c.Cause, c.Stage, c.Part}, " "))
			if c.Status != "missing" || c.Cause == "" || c.Shows == "" ||
				c.Detail == "" {
				t.Errorf("does not say what cannot be told, and why: %s", line)
			}
		}
		if _, ok := checks[name]; ok {
			t.Errorf("%s is there twice", name)
		}
		checks[name] = c
	}
	return checks
}

// attachedAny reports whether one of these hooks is attached: which of them the backend has.
func attachedAny(checks map[string]check, hooks ...string) bool {
	return slices.ContainsFunc(hooks, func(hook string) bool {
		c := checks[hook]
		return c.Attached != nil && *c.Attached
	})
}

// TestCheck agrees with what this kernel then does.
func TestCheck(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"check", "-o", "json"}, plainEnv(&stdout, &stderr))
	if code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d, standard error:\n%s", code, stderr.String())
	}
	checks := decodeChecks(t, stdout.String())
	for _, name := range []string{"CAP_BPF", "CAP_PERFMON", "kernel", "BTF", "counters",
		"ring buffer", "trace"} {
		if c := checks[name]; c.Status != "ok" {
			t.Errorf("%s: %+v, want status ok", name, c)
		}
	}
	if n := len(checks["counters"].Counters); n != 10 {
		t.Errorf("%d counters, want 10", n)
	}
	attached := 0
	for _, c := range checks {
		if c.Attached == nil {
			continue
		}
		if c.Note == "" {
			t.Errorf("%s does not say why", c.Name)
		}
		if *c.Attached {
			attached++
		}
	}
	if attached < 3 {
		t.Errorf("%d hooks attached", attached)
	}
	// What is not told on any kernel, or for want of a hook.
	for name, want := range map[string]bool{"cause no_memory": true,
		"cause syn_backlog_reserve syn": true,
		"cause listener_closed ack": !attachedAny(checks,
			"inet_csk_reqsk_queue_drop_and_put", "timer_cancel")} {
		if _, ok := checks[name]; ok != want {
			t.Errorf("%s is listed: %v", name, ok)
		}
	}
	for _, name := range []string{"trampoline", "kprobe", "tracepoint"} {
		c := checks[name]
		if c.Available == nil || c.Backend != name {
			t.Errorf("%s: %+v, want a backend, available or not", name, c)
			continue
		}
		// What is said to be available traces, and nothing else does.
		var stderr bytes.Buffer
		want := 3
		if *c.Available {
			want = 0
		}
		code := run(t.Context(), []string{"trace", "--backend", name, "--duration", "1ms"},
			plainEnv(&bytes.Buffer{}, &stderr))
		if code != want {
			t.Errorf("trace by %s: exit code %d, want %d; standard error:\n%s", name,
				code, want, stderr.String())
		}
		if code := run(t.Context(), []string{"check", "--backend", name},
			plainEnv(&stdout, &stderr)); code != want {
			t.Errorf("check %s: exit code %d, want %d", name, code, want)
		}
	}
}

// TestCheckWithoutPrivileges tells what can be known, and what to do.
func TestCheckWithoutPrivileges(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := as(t, nil, "check", "-o", "json")
	if code != 3 || !strings.Contains(stderr, "run it with sudo") {
		t.Errorf("exit code %d, want 3 and a remedy; standard error:\n%s", code, stderr)
	}
	checks := decodeChecks(t, stdout)
	for name, want := range map[string]string{"CAP_BPF": "refused", "BTF": "ok",
		"counters": "ok", "tracepoint": "refused",
		"ring buffer": "unknown", "trace": "refused"} {
		c := checks[name]
		if c.Status != want {
			t.Errorf("%s: status %q, want %q", name, c.Status, want)
		}
		if c.Status == "refused" && c.Remedy == "" && name != "trace" {
			t.Errorf("%s has no remedy", name)
		}
	}
	if c := checks["tracepoint"]; c.Available == nil || *c.Available {
		t.Errorf("tracepoint: %+v, want not available", c)
	}
	if _, ok := checks["cause no_memory"]; ok {
		t.Error("what cannot be told is listed where nothing is")
	}
	planned := slices.ContainsFunc(slices.Collect(maps.Values(checks)), func(c check) bool {
		return c.Attached != nil
	})
	if !planned {
		t.Error("no plan")
	}
	table, _, code := as(t, nil, "check")
	if code != 3 || !strings.Contains(table, "CAP_BPF") || !strings.Contains(table, "trace ") {
		t.Errorf("exit code %d, table:\n%s", code, table)
	}
}
