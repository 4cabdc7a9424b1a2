// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/session"
	"github.com/synspy/synspy/internal/trace"
)

// LabRun is what to play under one trace.
type LabRun struct {
	Names []string
	// Soak, if not 0, is for how long to play them again and again, shuffled and
	// two at a time.
	Soak   time.Duration
	Each   func(Judged) error // is told each verdict, one at a time
	Status io.Writer          // for people: standard error
}

// Judged is a verdict, and the records of a scenario that failed.
type Judged struct {
	Verdict
	Records []event.Drop
}

// soakers is how many scenarios a soak plays at a time.
const soakers = 2

// labRate is how many records a second, listener and cause the trace of the whole machine takes:
// more than any scenario has, so that others who drop more than that leave room for them.
const labRate = 20_000

// settleFor bounds how long records may take to come out of the ring buffer: on an
// emulated machine, naming one kernel function takes a second or two.
const settleFor = time.Minute

// crowd is how many handshakes, of others too, leave so little room in the table of
// tries that a first one may not be known as such.
const crowd = 8192

// RunLabTogether plays scenarios under one trace of the whole machine, each in its own
// namespace, and compares each one's page of the ledger while the trace goes on.
// The summary is that of the trace. The error wraps ErrMismatch if a
// scenario's account differs, or the trace's does not balance.
func RunLabTogether(ctx context.Context, run LabRun, watch session.Watch,
	log *slog.Logger) (event.Summary, error) {
	var none event.Summary
	scenarios := make([]scenario.Scenario, 0, len(run.Names))
	for _, name := range run.Names {
		scenario, ok := lab.Find(name)
		if !ok {
			return none, noScenario(name)
		}
		scenarios = append(scenarios, scenario)
	}
	prepared, err := prepareAll(ctx, scenarios)
	if err != nil {
		return none, err
	}
	watch.Rate = labRate
	s, err := session.OpenUntil(ctx, watch, log)
	err = errors.Join(err, prepared.close())
	if err != nil {
		return none, err
	}
	bench := &workbench{run: run, watch: watch, ready: s.Ready(), failed: make(map[string]int)}
	bench.trace = trace.New(s, bench, trace.Options{Watch: watch, Status: run.Status})
	tracing, stop := context.WithCancel(ctx)
	defer stop()
	playing, giveUp := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		defer giveUp()
		ended <- bench.trace.Run(tracing)
	}()
	err = bench.play(playing, scenarios)
	stop()
	err = errors.Join(err, <-ended, s.Close())
	if err == nil && !bench.summary.Balanced {
		err = fmt.Errorf("%w: the ledger of the whole trace does not balance", ErrMismatch)
	}
	return bench.summary, err
}

// worlds are namespaces in which scenarios are prepared.
type worlds []*world.World

func (w worlds) close() error {
	var errs []error
	for _, world := range w {
		errs = append(errs, world.Close())
	}
	return errors.Join(errs...)
}

// prepareAll makes the kernel load what it loads on demand, and has there, until the
// worlds are closed, what a trace looks for when it begins.
func prepareAll(ctx context.Context, scenarios []scenario.Scenario) (prepared worlds, err error) {
	for _, scenario := range scenarios {
		if scenario.Prepare == nil {
			continue
		}
		w, err := world.New(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", cli.ErrUnable, err),
				prepared.close())
		}
		prepared = append(prepared, w)
		err = scenario.Prepare(w)
		if err != nil &&
			!errors.Is(err, world.ErrCannotHold) { // that is told when it is its turn
			return nil, errors.Join(fmt.Errorf("%w: %s: %w", cli.ErrUnable,
				scenario.Name, err), prepared.close())
		}
	}
	return prepared, nil
}

// workbench is one trace, and the scenarios that are played under it. It is the
// trace's stream.
type workbench struct {
	run     LabRun
	watch   session.Watch
	trace   *trace.Trace
	ready   event.Ready
	summary event.Summary

	records labRecords
	flushed atomic.Uint64
	verdict sync.Mutex // guards failed, and Each
	failed  map[string]int
}

func (b *workbench) Ready(event.Ready) error             { return nil }
func (b *workbench) Suppressed(h event.Suppressed) error { b.records.suppressed(h); return nil }
func (b *workbench) Summary(s event.Summary) error       { b.summary = s; return nil }
func (b *workbench) Drop(d *event.Drop) error            { b.records.add(d); return nil }

// Flush comes after everything that waited in the ring buffer.
func (b *workbench) Flush() error {
	b.flushed.Add(1)
	return nil
}

// play plays everything once, or for as long as a soak is to take.
func (b *workbench) play(ctx context.Context, scenarios []scenario.Scenario) error {
	if b.run.Soak == 0 {
		for _, scenario := range scenarios {
			if err := b.one(ctx, scenario); err != nil {
				return err
			}
		}
		return b.failure()
	}
	until := time.Now().Add(b.run.Soak)
	errs := make([]error, soakers)
	var players sync.WaitGroup
	for player := range soakers {
		players.Go(func() {
			for errs[player] == nil && time.Now().Before(until) {
				for _, turn := range rand.Perm(len(scenarios)) {
					if errs[player] = b.one(ctx,
						scenarios[turn]); errs[player] != nil ||
						!time.Now().Before(until) {
						break
					}
				}
			}
		})
	}
	players.Wait()
	return errors.Join(errors.Join(errs...), b.failure())
}

// failure says which scenarios failed how often.
func (b *workbench) failure() error {
	var names []string
	for name, times := range b.failed {
		names = append(names, fmt.Sprintf("%s (%d)", name, times))
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("%w: %v", ErrMismatch, names)
}

// one plays a scenario and judges it. One that could not be played to the end says
// nothing about synspy; beside others and on a slow machine it gets a second chance.
func (b *workbench) one(ctx context.Context, scenario scenario.Scenario) error {
	verdict, drops, err := b.attempt(ctx, scenario)
	if errors.Is(err, errNotPlayed) {
		verdict, drops, err = b.attempt(ctx, scenario)
	}
	if errors.Is(err, errOthers) {
		verdict, drops, err = b.alone(ctx, scenario)
	}
	if errors.Is(err, errNotPlayed) { // the others may go well
		verdict.Mismatches, err = []string{err.Error()}, nil
	}
	if err != nil {
		return err
	}
	return b.tell(verdict, drops)
}

// errOthers is traffic of others that kept a scenario's records from coming: it says nothing about
// synspy.
var errOthers = errors.New("not judged")

// alone plays a scenario under a trace of its own namespace alone, which others cannot fill.
func (b *workbench) alone(ctx context.Context, scenario scenario.Scenario) (Verdict, []event.Drop,
	error) {
	var kept keptDrops
	verdict, err := RunLab(ctx, scenario.Name, &kept, LabOptions{Watch: b.watch}, b.trace.Log)
	switch {
	case errors.Is(err, ErrMismatch):
		err = nil
	case errors.Is(err, cli.ErrUnable) && errors.Is(err, world.ErrCannotHold) &&
		verdict.Name == "":
		verdict = Verdict{Header: event.Head("scenario"), Name: scenario.Name,
			Backend: b.ready.Backend, Cannot: err.Error()}
		err = nil
	case err != nil && verdict.Name != "": // nothing that it is about is told here
		err = nil
	}
	return verdict, kept.drops, err
}

// keptDrops is a stream that keeps the drops alone.
type keptDrops struct{ drops []event.Drop }

func (k *keptDrops) Ready(event.Ready) error           { return nil }
func (k *keptDrops) Suppressed(event.Suppressed) error { return nil }
func (k *keptDrops) Summary(event.Summary) error       { return nil }
func (k *keptDrops) Flush() error                      { return nil }
func (k *keptDrops) Drop(d *event.Drop) error {
	k.drops = append(k.drops, *d)
	return nil
}

// errNotPlayed is a kernel that did not answer as a scenario needs.
var errNotPlayed = errors.New("not played to the end")

// attempt plays a scenario in a namespace of its own.
func (b *workbench) attempt(ctx context.Context, scenario scenario.Scenario) (Verdict, []event.Drop,
	error) {
	began := time.Now()
	verdict := Verdict{Header: event.Head("scenario"), Name: scenario.Name,
		Backend: b.ready.Backend}
	w, err := world.New(ctx)
	if err != nil {
		return verdict, nil, fmt.Errorf("%w: %w", cli.ErrUnable, err)
	}
	defer func() { _ = w.Close() }() // nothing is lost with it
	b.records.play(w.NetNS())
	defer b.records.forget(w.NetNS())
	missed := b.records.notCome()
	if scenario.Prepare != nil {
		err := scenario.Prepare(w)
		if errors.Is(err, world.ErrCannotHold) {
			verdict.Cannot = err.Error()
			return verdict, nil, nil
		}
		if err != nil {
			return verdict, nil, fmt.Errorf("%w: %s: %w", cli.ErrUnable, scenario.Name,
				err)
		}
	}
	seen, err := b.seen()
	if err != nil {
		return verdict, nil, err
	}
	expected, err := scenario.Play(ctx, w, func(string, ...any) {})
	switch {
	case errors.Is(err, world.ErrCannotHold):
		verdict.Cannot = err.Error()
		return verdict, nil, nil
	case err != nil && ctx.Err() == nil:
		return verdict, nil, fmt.Errorf("%w: %w", errNotPlayed, err)
	case err != nil:
		return verdict, nil, fmt.Errorf("play %s: %w", scenario.Name, err)
	}
	got, err := b.collect(w.NetNS(), began, expected.Quiet, seen, missed)
	if errors.Is(err, errOthers) {
		return verdict, nil, err
	}
	if err != nil {
		return verdict, nil, fmt.Errorf("play %s: %w", scenario.Name, err)
	}
	verdict.Summary, verdict.Cookies = got.summary, got.summary.Cookies
	compare(&verdict, expected, got, w.NetNS())
	verdict.DurationMs = time.Since(began).Milliseconds()
	return verdict, got.drops, nil
}

func (b *workbench) tell(verdict Verdict, drops []event.Drop) error {
	b.verdict.Lock()
	defer b.verdict.Unlock()
	judged := Judged{Verdict: verdict}
	if !verdict.Passed && verdict.Cannot == "" {
		b.failed[verdict.Name]++
		judged.Records = drops
	}
	return b.run.Each(judged)
}

// seen is what has arrived so far, by listener.
func (b *workbench) seen() (map[uint64]uint64, error) {
	arrivals, _, err := b.trace.Probe.Arrivals()
	syns := make(map[uint64]uint64, len(arrivals))
	for _, a := range arrivals {
		syns[a.Socket] = a.Syn
	}
	return syns, err
}

// collect waits until the records of all that was counted in a namespace are
// there, and makes a summary of it. quiet are namespaces whose records would be wrong.
func (b *workbench) collect(netns uint64, since time.Time, quiet []uint64, seen map[uint64]uint64,
	missed uint64) (*recorder, error) {
	begun := time.Now()
	deadline := begun.Add(settleFor)
	for flushed := b.flushed.Load(); b.flushed.Load() < flushed+2 &&
		time.Now().Before(deadline); { // what opened, too, is known by then
		time.Sleep(10 * time.Millisecond)
	}
	for {
		got := &recorder{hooks: b.ready.Hooks, backend: b.ready.Backend,
			drops: b.records.of(append(slices.Clone(quiet), netns),
				event.Time{Time: since})}
		counted, err := b.summarize(netns, got, seen)
		if err != nil {
			return nil, err
		}
		if uint64(len(got.drops)) >= counted || time.Now().After(deadline) {
			return got, nil
		}
		if more := b.records.notCome() - missed; more > 0 &&
			time.Since(begun) > 5*time.Second {
			return nil, fmt.Errorf("%w: %d records were held back or lost, since others on this machine drop so much", errOthers, more)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// summarize makes a namespace's summary, and says how many drops were counted there.
func (b *workbench) summarize(netns uint64, got *recorder, seen map[uint64]uint64) (uint64, error) {
	account, err := b.trace.Probe.Account(netns)
	if err != nil {
		return 0, err
	}
	s := &got.summary
	*s = event.Summary{Header: event.Head("summary"), Ledger: account.Rows,
		Delivered: uint64(len(got.drops))}
	s.Balance()
	s.Counts, s.Cookies = trace.CountsOf(account.Counted)
	var counted uint64
	for _, c := range s.Counts {
		counted += c.Count
	}
	for i := range got.drops {
		if got.drops[i].Attempt == 1 {
			s.Handshakes++
		}
	}
	arrivals, handshakes, err := b.trace.Probe.Arrivals()
	if err != nil {
		return 0, err
	}
	got.crowded = handshakes > crowd
	for i := range arrivals {
		arrivals[i].Syn -= min(arrivals[i].Syn, seen[arrivals[i].Socket])
	}
	for _, row := range b.trace.Seen(arrivals, nil) {
		if row.Listener.NetNS == netns {
			s.Seen = append(s.Seen, row)
		}
	}
	return counted, nil
}
