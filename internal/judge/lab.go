// SPDX-License-Identifier: Apache-2.0

// Package judge runs the lab and compares what synspy says with what was done.
package judge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab"
	"github.com/synspy/synspy/internal/lab/incident"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
	"github.com/synspy/synspy/internal/trace"
)

// ErrMismatch says that what synspy saw is not what the scenario made.
var ErrMismatch = errors.New("synspy's account differs from what was done")

// LabOptions are those of synspy lab run.
type LabOptions struct {
	Watch    session.Watch
	Progress func(format string, args ...any) // for people; may be nil
}

// Scenario is a scenario's name and what it shows, for the list.
type Scenario struct{ Name, Title string }

// Scenarios lists the lab.
func Scenarios() []Scenario {
	var list []Scenario
	for _, s := range lab.Scenarios() {
		list = append(list, Scenario{s.Name, s.Title})
	}
	return list
}

// Incidents lists what the lab makes to be diagnosed.
func Incidents() []Scenario {
	var list []Scenario
	for _, i := range incident.All() {
		list = append(list, Scenario{i.Name, i.Title})
	}
	return list
}

// Verdict is what became of one scenario.
type Verdict struct {
	event.Header
	Name       string        `json:"name"`
	Backend    string        `json:"backend"`
	Passed     bool          `json:"passed"`
	Expected   []event.Count `json:"expected"`
	Recorded   []event.Count `json:"recorded"`
	Cookies    uint64        `json:"cookies"`
	Mismatches []string      `json:"mismatches,omitempty"`
	Cannot     string        `json:"cannot,omitempty"` // what this kernel lacks to play it
	Unseen     []string      `json:"unseen,omitempty"` // what the hooks here cannot tell, and why
	Summary    event.Summary `json:"summary"`
	DurationMs int64         `json:"duration_ms"`
}

// RunLab plays one scenario in a private namespace with a trace attached, hands
// the records to stream, and compares expectation, records and counters.
func RunLab(ctx context.Context, name string, stream cli.Stream, options LabOptions,
	log *slog.Logger) (Verdict, error) {
	scenario, ok := lab.Find(name)
	if !ok {
		return Verdict{}, noScenario(name)
	}
	began := time.Now()
	w, err := world.New(ctx)
	if err != nil {
		return Verdict{}, fmt.Errorf("%w: %w", cli.ErrUnable, err)
	}
	defer func() { _ = w.Close() }() // nothing is lost with it
	if scenario.Prepare != nil {
		if err := scenario.Prepare(w); err != nil {
			return Verdict{}, fmt.Errorf("%w: %s: %w", cli.ErrUnable, name, err)
		}
	}
	watch := options.Watch
	watch.Filter.NetNS = w.NetNS()
	watch.Rate = 0
	records := &recorder{Stream: stream, ready: make(chan struct{})}

	tracing, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- trace.Run(tracing, records, trace.Options{Watch: watch, Keeps: true}, log)
	}()
	select {
	case err := <-ended:
		return Verdict{}, err
	case <-records.ready:
	}
	progress := options.Progress
	if progress == nil {
		progress = func(string, ...any) {}
	}
	expected, playErr := scenario.Play(ctx, w, progress)
	stop()
	if errors.Is(playErr, world.ErrCannotHold) {
		return Verdict{}, errors.Join(fmt.Errorf("%w: %s: %w", cli.ErrUnable, name,
			playErr), <-ended)
	}
	if err := errors.Join(playErr, <-ended); err != nil {
		return Verdict{}, fmt.Errorf("play %s: %w", name, err)
	}
	verdict := Verdict{Header: event.Head("scenario"), Name: name, Backend: records.backend,
		Summary: records.summary, Cookies: records.summary.Cookies, DurationMs: time.Since(began).Milliseconds()}
	compare(&verdict, expected, records, w.NetNS())
	if verdict.Cannot != "" {
		return verdict, fmt.Errorf("%w: %s: %s", cli.ErrUnable, name, verdict.Cannot)
	}
	if !verdict.Passed {
		return verdict, fmt.Errorf("%w: %s: %s", ErrMismatch, name, verdict.Mismatches[0])
	}
	return verdict, nil
}

// recorder keeps the records of a run while it passes them on.
type recorder struct {
	cli.Stream
	ready   chan struct{}
	backend string
	hooks   []event.Hook
	drops   []event.Drop
	summary event.Summary
	crowded bool // tries may be unknown
}

func (r *recorder) Ready(ready event.Ready) error {
	r.backend, r.hooks = ready.Backend, ready.Hooks
	err := r.Stream.Ready(ready)
	close(r.ready)
	return err
}

func (r *recorder) Drop(d *event.Drop) error {
	r.drops = append(r.drops, *d)
	return r.Stream.Drop(d)
}

func (r *recorder) Summary(s event.Summary) error {
	r.summary = s
	return r.Stream.Summary(s)
}

var _ render.Stream = (*recorder)(nil)

func sortCounts(counts []event.Count) {
	slices.SortFunc(counts, func(a, b event.Count) int {
		return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Stage, b.Stage),
			cmp.Compare(a.Action, b.Action))
	})
}

// noScenario is a scenario that does not exist, with what was meant.
func noScenario(name string) error {
	names := make([]string, 0, 64)
	for _, s := range append(Scenarios(), Incidents()...) {
		names = append(names, s.Name)
	}
	hint := "synspy lab list shows them"
	if near := cli.DidYouMean(name, names); near != "" {
		hint = near
	}
	return cli.Usage("no scenario %q; %s", name, hint)
}
