// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
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
	if err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
	played, ended := 0, false
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
}
