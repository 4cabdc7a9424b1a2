// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
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
	if err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
	played, missed, ended := 0, 0, false
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
		case r.Type == "scenario" && onlyUnattributed(r.Mismatches):
			missed++
			t.Logf("%s: %q", r.Name, r.Mismatches)
		case r.Type == "scenario" && r.Cannot == "":
			t.Errorf("%s: %q", r.Name, r.Mismatches)
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
	if missed > 1+played/50 {
		t.Errorf("in %d scenarios, %d passed, more packets than 1 in 1,000 stayed unattributed", missed, played)
	}
}

// onlyUnattributed reports whether synspy left packets unattributed and was wrong in nothing. Some
// guest kernels run no BPF program for ticks on end while one of the host's threads is current
// (TestMissedEvents): a busy machine then shows it in a scenario of a hundred, which is no fault
// as long as the ledger says so.
func onlyUnattributed(mismatches []string) bool {
	for _, m := range mismatches {
		if !strings.HasSuffix(m, " unattributed") {
			return false
		}
	}
	return len(mismatches) > 0
}
