// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// found is a finding with what orders it and makes the verdict.
type found struct {
	event.Finding
	weight    uint64 // the drops it explains
	counted   bool   // its sentence says how many handshakes it is about: what died is not their number
	concerned int    // processes, also those that are not listed
	because   string // its part of the verdict: "... died because <because>"
	rests     []Need // the evidence that it presumes was to be had
	lacking   string // what was refused of it, and by what; empty for nothing
	doubt     bool   // it says what is not known
	quiet     bool   // it gives way to any cause
}

// newFound starts a finding from its row in the table: a cause, unless the rule says otherwise.
func newFound(id event.FindingID, weight uint64) *found {
	info, _ := event.FindingOf(id)
	return &found{weight: weight, because: info.Title, rests: rests[id], Finding: event.Finding{
		ID: id, Severity: event.SeverityCause, Title: info.Title, Owner: info.Owner,
		Evidence: []event.Evidence{}, Fix: []string{}, Confidence: event.ConfidenceLikely,
	}}
}

func (f *found) about(l *Listener, processes []event.Process) *found {
	f.Listener = &l.ID
	f.Processes, f.concerned = bound(processes, maxConcerned), len(processes)
	if f.concerned > maxConcerned {
		f.saw("processes that it is about", f.concerned, "processes")
	}
	return f
}

// actors names the processes that it is about in a sentence.
func (f *found) actors() string {
	if more := f.concerned - 1; len(f.Processes) > 0 && more > 0 {
		return fmt.Sprintf("%s and %d more", who(f.Processes[0]), more)
	}
	return actors(f.Processes)
}

func (f *found) saw(what string, v any, unit string) *found {
	f.Evidence = append(f.Evidence, seen(what, v, unit))
	return f
}

// sawKnown cites a number only where it is known.
func sawKnown[T any](f *found, what string, v *T, unit string) {
	if v != nil {
		f.saw(what, *v, unit)
	}
}

func (f *found) fix(sentences ...string) *found {
	f.Fix = append(f.Fix, sentences...)
	return f
}

// turn adds a knob and the sentence that says to turn it.
func (f *found) turn(k event.Knob) *found {
	f.Knobs = append(f.Knobs, k)
	s := "set " + k.Name + " to " + k.Try
	if k.Now != "" {
		s += " (now " + k.Now + ")"
	}
	if k.Where != "" {
		s += " in " + k.Where
	}
	if k.Why != "" {
		s += ": " + k.Why
	}
	return f.fix(s)
}

const (
	maxConcerned = 32 // processes that a finding lists
	maxProcesses = 8  // of anything else
	maxStacks    = 8
	maxClients   = 20
)

func bound[T any](list []T, most int) []T {
	if len(list) > most {
		return slices.Clone(list[:most])
	}
	return list
}
