// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/test/schema"
	"github.com/synspy/synspy/test/sentences"
)

// incidentVerdict is the last line that lab run writes of an incident, as its documentation has it.
type incidentVerdict struct {
	Name, Expected string
	Passed         bool
	Findings       []string
	Mismatches     []string
}

// maxAgain bounds the incidents that may fail in company: a wrong rule fails more of them, or fails
// alone.
const maxAgain = 3

// TestIncidents: each of the lab's incidents is diagnosed as what it is, and nothing else is called
// a cause.
func TestIncidents(t *testing.T) {
	aboutCPUs := []string{"diagnose-starved", "diagnose-busy"} // who gets a CPU: these are played alone
	var others []string
	list, _, _ := runProgram(t, 0, "lab", "list")
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(line, " ")
		if strings.HasPrefix(name, "diagnose-") && !slices.Contains(aboutCPUs, name) {
			others = append(others, name)
		}
	}
	if len(others) < 10 {
		t.Fatalf("lab list names %d incidents:\n%s", len(others), list)
	}
	// They mostly wait: more at a time than there are CPUs, which is what t.Parallel is bounded
	// by. What a crowded machine does to them may truly be another incident than was made, so
	// what fails in company is played again, alone.
	var again []string
	var mu sync.Mutex
	together := make(chan struct{}, 8)
	var all sync.WaitGroup
	for _, name := range others {
		all.Go(func() {
			together <- struct{}{}
			defer func() { <-together }()
			if wrong := wrongVerdict(name); wrong != "" {
				mu.Lock()
				defer mu.Unlock()
				again = append(again, name)
				t.Logf("%s, in company: %s", name, wrong)
			}
		})
	}
	all.Wait()
	if len(again) > maxAgain {
		t.Errorf("%d of %d incidents failed in company", len(again), len(others))
	}
	for _, name := range aboutCPUs {
		if wrong := wrongVerdict(name); wrong != "" {
			again = append(again, name)
			t.Logf("%s: %s", name, wrong)
		}
	}
	for _, name := range again {
		if wrong := wrongVerdict(name); wrong != "" {
			t.Errorf("%s, alone: %s", name, wrong)
		}
	}
}

// wrongVerdict plays an incident and says what is wrong with the verdict on it; nothing if it is
// right.
func wrongVerdict(name string) string {
	v, text, err := playIncident(name)
	if err == nil && v.Passed {
		return ""
	}
	return fmt.Sprintf("want %s first and no other cause: %s: %v\n%s", v.Expected, v.Mismatches,
		err, text)
}

// playIncident returns the verdict on an incident, and its diagnosis as text.
func playIncident(name string) (v incidentVerdict, text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "lab", "run", name, "-o", "json")
	cmd.Stderr = &errs
	out, failed := cmd.Output()
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) != 2 {
		return v, "", fmt.Errorf("%d lines, want a diagnosis and a verdict: %w\n%s",
			len(lines), failed, &errs)
	}
	var d diagnosis
	if err := errors.Join(json.Unmarshal(lines[0], &d),
		json.Unmarshal(lines[1], &v)); err != nil {
		return v, "", err
	}
	if _, err := schema.CheckLines(out); err != nil {
		return v, "", err
	}
	if v.Name != name || (failed == nil) != v.Passed {
		return v, "", fmt.Errorf("verdict %+v, and %w", v, failed)
	}
	var all event.Diagnosis
	if err := json.Unmarshal(lines[0], &all); err != nil {
		return v, "", err
	}
	if wrong := sentences.Contradictions(all); len(wrong) > 0 {
		return v, "", fmt.Errorf("its sentences do not fit its numbers: %s\n%s",
			strings.Join(wrong, "; "), sentences.Report(all))
	}
	return v, d.String(), nil
}
