// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/collect"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/incident"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/probe/load"
)

// incidentTime is how long an incident is watched.
const incidentTime = 6 * time.Second

// IsIncident reports whether the lab's scenario is one to diagnose.
func IsIncident(name string) bool {
	_, ok := incident.Find(name)
	return ok
}

// IncidentVerdict is what became of one incident.
type IncidentVerdict struct {
	event.Header
	Name       string          `json:"name"`
	Passed     bool            `json:"passed"`
	Expected   string          `json:"expected"` // the finding that must come first
	Findings   []string        `json:"findings"` // severity and name, in order
	Mismatches []string        `json:"mismatches,omitempty"`
	DurationMs int64           `json:"duration_ms"`
	Diagnosis  event.Diagnosis `json:"-"`
}

// RunIncident makes a listener's trouble in a private namespace, diagnoses it, and compares
// the diagnosis with what was done. The error wraps ErrMismatch if the first finding is
// another one, or if anything else is called a cause.
func RunIncident(ctx context.Context, name string, options LabOptions, status io.Writer,
	log *slog.Logger) (IncidentVerdict, error) {
	incident, ok := incident.Find(name)
	if !ok {
		return IncidentVerdict{}, noScenario(name)
	}
	began := time.Now()
	v := IncidentVerdict{Header: event.Head("scenario"), Name: name, Expected: incident.Finding,
		Findings: []string{}}
	w, err := world.New(ctx)
	if err != nil {
		return IncidentVerdict{}, fmt.Errorf("%w: %w", cli.ErrUnable, err)
	}
	defer func() { _ = w.Close() }() // nothing is lost with it
	progress := options.Progress
	if progress == nil {
		progress = func(string, ...any) {}
	}
	traffic, err := incident.Begin(ctx, w, progress)
	if errors.Is(err, world.ErrCannotHold) {
		return IncidentVerdict{}, fmt.Errorf("%w: %s: %w", cli.ErrUnable, name, err)
	}
	if err != nil {
		return IncidentVerdict{}, fmt.Errorf("play %s: %w", name, err)
	}
	var player errgroup.Group
	defer func() { _ = player.Wait() }() // the world is not taken from under it
	playing, stop := context.WithCancel(ctx)
	defer stop()
	watch := options.Watch
	watch.Filter.NetNS, watch.Rate = w.NetNS(), collect.DiagnoseRate
	filters := []event.Filter{{Name: "netns", Value: fmt.Sprint(w.NetNS())}}
	for _, port := range incident.Ports {
		watch.Filter.Ports = append(watch.Filter.Ports,
			load.PortRange{Low: port, High: port})
		filters = append(filters, event.Filter{Name: "port", Value: fmt.Sprint(port)})
	}
	v.Diagnosis, err = collect.Diagnose(ctx,
		collect.DiagnoseOptions{Watch: watch, Filters: filters, Duration: incidentTime,
			Status: status, Begun: func() {
				player.Go(func() error { return traffic(playing) })
			}}, log)
	if err != nil {
		return IncidentVerdict{}, err
	}
	if err := ctx.Err(); err != nil { // what was seen of it proves nothing
		return IncidentVerdict{}, fmt.Errorf("play %s: %w", name, err)
	}
	stop()
	if err := player.Wait(); err != nil {
		return IncidentVerdict{}, fmt.Errorf("play %s: %w", name, err)
	}
	v.judge(&incident)
	v.DurationMs = time.Since(began).Milliseconds()
	if !v.Passed {
		return v, fmt.Errorf("%w: %s: %s", ErrMismatch, name, v.Mismatches[0])
	}
	return v, nil
}

// judge compares the findings with the one that was made.
func (v *IncidentVerdict) judge(made *incident.Incident) {
	first := ""
	for i, f := range v.Diagnosis.Findings {
		v.Findings = append(v.Findings, string(f.Severity)+" "+string(f.ID))
		if i == 0 {
			first = string(f.ID)
		}
		if i == 0 && !made.Harmless {
			continue
		}
		if f.Severity == event.SeverityCause && !slices.Contains(made.Also, string(f.ID)) {
			v.Mismatches = append(v.Mismatches,
				fmt.Sprintf("%s is called a cause, too", f.ID))
		}
	}
	if first != v.Expected {
		v.Mismatches = append([]string{fmt.Sprintf("the first finding is %q, expected %s",
			first, v.Expected)}, v.Mismatches...)
	}
	for _, name := range made.Names {
		if len(v.Diagnosis.Findings) > 0 && !cites(&v.Diagnosis.Findings[0], name) {
			v.Mismatches = append(v.Mismatches,
				fmt.Sprintf("the evidence does not name %s", name))
		}
	}
	for _, words := range made.Advice {
		if len(v.Diagnosis.Findings) > 0 &&
			!strings.Contains(strings.Join(v.Diagnosis.Findings[0].Fix, "\n"), words) {
			v.Mismatches = append(v.Mismatches,
				fmt.Sprintf("the fixes do not name %s", words))
		}
	}
	for _, f := range v.Diagnosis.Findings {
		v.mistaken(made, &f)
	}
	if made.Unproven && len(v.Diagnosis.Findings) > 0 &&
		v.Diagnosis.Findings[0].Confidence == event.ConfidenceProven {
		v.Mismatches = append(v.Mismatches, "the first finding is called proven")
	}
	if made.Place.IsValid() && len(v.Diagnosis.Findings) > 0 {
		l := v.Diagnosis.Findings[0].Listener
		if l == nil || netip.AddrPortFrom(l.Addr, l.Port) != made.Place {
			v.Mismatches = append(v.Mismatches,
				fmt.Sprintf("the first finding does not name the listener on %s",
					made.Place))
		}
	}
	v.Passed = len(v.Mismatches) == 0
}

// mistaken notes what a finding must not say, and files that it names and that are not there.
func (v *IncidentVerdict) mistaken(made *incident.Incident, f *event.Finding) {
	said := f.Title + "\n" + strings.Join(f.Fix, "\n")
	for _, words := range made.Never {
		if strings.Contains(said, words) {
			v.Mismatches = append(v.Mismatches, fmt.Sprintf("%s says %q", f.ID, words))
		}
	}
	for _, k := range f.Knobs {
		if !strings.HasPrefix(k.Where, "/sys/fs/cgroup/") {
			continue
		}
		if _, err := os.Stat(k.Where); err != nil {
			v.Mismatches = append(v.Mismatches,
				fmt.Sprintf("%s names a file that is not there: %v", f.ID, err))
		}
	}
}

// cites reports whether the evidence of a finding has the word.
func cites(f *event.Finding, word string) bool {
	return slices.ContainsFunc(f.Evidence, func(e event.Evidence) bool {
		return strings.Contains(fmt.Sprint(e.What, " ", e.Value), word)
	})
}
