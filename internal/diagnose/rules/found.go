// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// Found is a finding with what orders it and makes the verdict.
type Found struct {
	event.Finding
	Weight    uint64          // the drops it explains
	Counted   bool            // its sentence says how many handshakes it is about: what died is not their number
	concerned int             // processes, also those that are not listed
	Because   string          // its part of the verdict: "... died because <because>"
	rests     []evidence.Need // the evidence that it presumes was to be had
	lacking   string          // what was refused of it, and by what; empty for nothing
	Doubt     bool            // it says what is not known
	quiet     bool            // it gives way to any cause
}

// newFound starts a finding from its row in the table: a cause, unless the rule says otherwise.
func newFound(id event.FindingID, weight uint64) *Found {
	info, _ := event.FindingOf(id)
	return &Found{Weight: weight, Because: info.Title, rests: Rests[id], Finding: event.Finding{
		ID: id, Severity: event.SeverityCause, Title: info.Title, Owner: info.Owner,
		Evidence: []event.Evidence{}, Fix: []string{}, Confidence: event.ConfidenceLikely,
	}}
}

func (f *Found) about(l *evidence.Listener, processes []event.Process) *Found {
	f.Listener = &l.ID
	f.Processes, f.concerned = evidence.Bound(processes, MaxConcerned), len(processes)
	if f.concerned > MaxConcerned {
		f.saw("processes that it is about", f.concerned, "processes")
	}
	return f
}

// actors names the processes that it is about in a sentence.
func (f *Found) actors() string {
	if more := f.concerned - 1; len(f.Processes) > 0 && more > 0 {
		return fmt.Sprintf("%s and %d more", advice.Who(f.Processes[0]), more)
	}
	return actors(f.Processes)
}

func (f *Found) saw(what string, v any, unit string) *Found {
	f.Evidence = append(f.Evidence, advice.Seen(what, v, unit))
	return f
}

// sawKnown cites a number only where it is known.
func sawKnown[T any](f *Found, what string, v *T, unit string) {
	if v != nil {
		f.saw(what, *v, unit)
	}
}

func (f *Found) fix(sentences ...string) *Found {
	f.Fix = append(f.Fix, sentences...)
	return f
}

// turn adds a knob and the sentence that says to turn it.
func (f *Found) turn(k event.Knob) *Found {
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
	MaxConcerned = 32 // processes that a finding lists
	MaxProcesses = 8  // of anything else
	MaxStacks    = 8
	MaxClients   = 20
)

// sawPlace cites where a death was: the namespace, with how it is entered, and the device that the
// packet came in by.
func (f *Found) sawPlace(d *evidence.Death) {
	switch {
	case d.Own && d.NetNS != 0:
		f.saw("network namespace", d.Space()+", synspy's own", "")
	case d.NetNS != 0:
		f.saw("network namespace", d.Space(), "")
	}
	if d.Device != "" {
		f.saw("device", evidence.Said(d.Device), "")
	}
}

// Rests lists what findings presume was looked for: one that says what threads did needs to know
// which of them accept, and a queue is only called too small where nothing else was found. Where a
// piece of it was refused, the finding is possible at most.
var Rests = map[event.FindingID][]evidence.Need{
	event.FindingCPUStarved:        {evidence.NeedCalls},
	event.FindingAcceptLoopBlocked: {evidence.NeedThreads, evidence.NeedCalls},
	event.FindingAcceptLoopBusy: {evidence.NeedThreads, evidence.NeedCalls,
		evidence.NeedOnCPU},
	event.FindingNoAcceptor: {evidence.NeedOwners, evidence.NeedThreads,
		evidence.NeedCalls, evidence.NeedAccepts},
	event.FindingAcceptRateExceeded: {evidence.NeedThreads, evidence.NeedCalls,
		evidence.NeedThrottled},
	event.FindingConnectionBurst: {evidence.NeedThreads, evidence.NeedCalls,
		evidence.NeedThrottled},
	event.FindingBacklogTooSmall: {evidence.NeedThreads, evidence.NeedCalls,
		evidence.NeedThrottled, evidence.NeedSysctls},
	event.FindingBacklogCapped: {evidence.NeedThreads, evidence.NeedCalls,
		evidence.NeedThrottled},
	event.FindingReuseportImbalance: {evidence.NeedMembers},
	event.FindingReturnPathLost:     {evidence.NeedSynAcks, evidence.NeedWayOut},
	event.FindingClientGaveUp:       {evidence.NeedSynAcks},
	event.FindingNoSynArrived: {evidence.NeedSyns, evidence.NeedIngress,
		evidence.NeedDevices},
	event.FindingHealthy: {evidence.NeedSyns, evidence.NeedIngress},
}
