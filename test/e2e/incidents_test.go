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
	"github.com/synspy/synspy/test/sentences"
)

// incidentVerdict is the last line that lab run writes of an incident, as its documentation has it.
type incidentVerdict struct {
	Name, Expected string
	Passed         bool
	Findings       []string
	Mismatches     []string
}

// TestIncidents: each of the lab's incidents is diagnosed as what it is, and nothing else is called a cause.
func TestIncidents(t *testing.T) {
	// These are about who gets a CPU: one at a time. On a machine that is busy with something else, what they
	// say may be true and not what was made, so they are played again, once.
	aboutCPUs := []string{"diagnose-starved", "diagnose-busy"}
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
	// The others mostly wait: more at a time than there are CPUs, which is what t.Parallel is bounded by.
	together := make(chan struct{}, 8)
	var all sync.WaitGroup
	for _, name := range others {
		all.Go(func() {
			together <- struct{}{}
			defer func() { <-together }()
			if v, text, err := playIncident(name); err != nil || !v.Passed {
				t.Errorf("%s: want %s first and no other cause: %s: %v\n%s", name, v.Expected, v.Mismatches, err, text)
			}
		})
	}
	all.Wait()
	for _, name := range aboutCPUs {
		t.Run(name, func(t *testing.T) {
			v, text, err := playIncident(name)
			if err == nil && !v.Passed {
				t.Logf("played again, since the machine may have been busy: %s\n%s", v.Mismatches, text)
				v, text, err = playIncident(name)
			}
			if err != nil || !v.Passed {
				t.Errorf("want %s first and no other cause: %s: %v\n%s", v.Expected, v.Mismatches, err, text)
			}
		})
	}
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
		return v, "", fmt.Errorf("%d lines, want a diagnosis and a verdict: %w\n%s", len(lines), failed, &errs)
	}
	var d diagnosis
	if err := errors.Join(json.Unmarshal(lines[0], &d), json.Unmarshal(lines[1], &v)); err != nil {
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
		return v, "", fmt.Errorf("its sentences do not fit its numbers: %s\n%s", strings.Join(wrong, "; "), sentences.Report(all))
	}
	return v, d.String(), nil
}
