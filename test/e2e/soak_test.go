// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"testing"
	"time"
)

// soak is how long; make soak takes five minutes.
const soak = 30 * time.Second

// TestSoak plays every scenario, shuffled and two at a time, under one trace: namespaces,
// sockets and their addresses come and go. Whatever is kept of one and taken for another
// makes a wrong cause, owner or count.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("the matrix plays every scenario under one trace anyway")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(program, "lab", "run", "all", "--soak", soak.String(), "-o", "json")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	played, ended := 0, false
	var again []string
	for line := range bytes.Lines(out) {
		var r struct {
			Type, Name, Cannot string
			Passed, Balanced   bool
			Mismatches         []string
			Lost               int
		}
		must(t, json.Unmarshal(line, &r))
		switch {
		case r.Type == "scenario" && r.Passed:
			played++
		case r.Type == "scenario" && r.Cannot == "":
			again = append(again, r.Name)
			t.Logf("%s: %q", r.Name, r.Mismatches)
		case r.Type == "summary":
			ended = true
			if !r.Balanced || r.Lost > 0 {
				t.Errorf("balanced %t, %d records lost", r.Balanced, r.Lost)
			}
		}
	}
	if played < 30 || !ended {
		t.Errorf("%d scenarios passed, summary written: %t", played, ended)
	}
	if err != nil && len(again) == 0 {
		t.Errorf("%v\n%s", err, &stderr)
	}
	// Some guest kernels run no BPF program for ticks on end while one of the host's threads is
	// current (TestMissedEvents): on a busy machine a scenario of a hundred has a packet that
	// no program saw. What is wrong in synspy fails alone as well, or fails more of them.
	if len(again) > 1+played/50 {
		t.Errorf("%d scenarios failed, %d passed: %q\n%s", len(again), played, again,
			&stderr)
	}
	for _, name := range again {
		runProgram(t, 0, "lab", "run", name)
	}
}
