// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestIncidentBlocked is of a loop that sleeps: accepts, sleeping threads and their stacks.
func TestIncidentBlocked(t *testing.T) {
	f := diagnoseIncident(t, "diagnose-blocked", event.FindingAcceptLoopBlocked)
	if call := evidenceOf(f, "call that they slept in"); call != "nanosleep" &&
		call != "clock_nanosleep" {
		t.Errorf("it slept in %v, want nanosleep", call)
	}
	if stack, _ := evidenceOf(f, "stack, innermost first").(string); stack == "" {
		t.Error("no stack")
	}
}

// TestIncidentThrottled is of a cgroup with a CPU quota, version 2 where that has the controller.
func TestIncidentThrottled(t *testing.T) {
	f := diagnoseIncident(t, "diagnose-throttled", event.FindingCPUThrottled)
	if quota, period := evidenceOf(f, "quota"), evidenceOf(f, "period"); quota != 2000.0 ||
		period != 100_000.0 {
		t.Errorf("%v of %v µs, want 2000 of 100000", quota, period)
	}
	if path, _ := evidenceOf(f, "cgroup").(string); path == "" {
		t.Error("no cgroup")
	}
}

// diagnoseIncident has synspy make a listener's trouble and returns what it finds first.
func diagnoseIncident(t *testing.T, name string, want event.FindingID) *event.Finding {
	t.Helper()
	args := []string{"lab", "run", name, "--output", "json"}
	if backend := os.Getenv("SYNSPY_BACKEND"); backend != "" {
		args = append(args, "--backend", backend)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	if err != nil {
		t.Errorf("%s: %v\n%s\n%s", name, err, stderr.Bytes(), out)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	var d event.Diagnosis
	if err := json.Unmarshal(line, &d); err != nil {
		t.Fatalf("decode %q: %v", line, err)
	}
	if len(d.Findings) == 0 || d.Findings[0].ID != want ||
		d.Findings[0].Severity != event.SeverityCause {
		t.Fatalf("%s does not come first: %s", want, d.Verdict)
	}
	if d.Balanced == nil || !*d.Balanced {
		t.Errorf("the ledger does not balance: %+v", d.Ledger)
	}
	return &d.Findings[0]
}

// evidenceOf is the value of that name, nil where there is none.
func evidenceOf(f *event.Finding, what string) any {
	for _, e := range f.Evidence {
		if e.What == what {
			return e.Value
		}
	}
	return nil
}
