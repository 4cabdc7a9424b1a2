// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/render"
)

// DiagnoseOptions are those of synspy diagnose beyond what to watch.
type DiagnoseOptions struct {
	Watch    Watch
	Filters  []event.Filter // the watch's, as they were given
	Duration time.Duration
	Status   io.Writer // for people: standard error; nil for nobody
	Begun    func()    // is called once everything is watched; may be nil
}

// DiagnoseRate is how many records a second and listener are looked at one by one unless asked
// otherwise; the counts know of all.
const DiagnoseRate = 1000

// Diagnose watches for the duration, or until the context ends, and judges what it saw.
// Errors are those of [Trace].
func Diagnose(ctx context.Context, options DiagnoseOptions, log *slog.Logger) (event.Diagnosis, error) {
	watch := options.Watch
	watch.Cookies, watch.Accepts = true, true
	if err := enoughFiles(filesToLoad + filesToSample + runtime.NumCPU()); err != nil {
		return event.Diagnosis{}, err
	}
	diverted := findDiversions(&watch.Filter)
	watch.Filter.Mapped = diverted.mapped()
	s, err := openUntil(ctx, watch, log)
	if err != nil {
		return event.Diagnosis{}, err
	}
	s.listeners.keep = maxKnown // a window's evidence names them all
	c := newCollector(s, options)
	c.diverted = diverted
	ctx, cancel := context.WithTimeout(ctx, options.Duration)
	defer cancel()
	if err := c.begin(ctx); err != nil {
		return event.Diagnosis{}, errors.Join(err, s.close())
	}
	if options.Begun != nil {
		options.Begun()
	}
	err = newTrace(s, c, TraceOptions{Watch: watch, Tick: pollInterval}).run(ctx)
	c.end()
	if err = errors.Join(err, s.close()); err != nil {
		return event.Diagnosis{}, err
	}
	d := diagnose.Diagnose(&c.evidence)
	d.Origin, d.Kernel = s.origin, kernel.Release()
	return d, nil
}

// progressEvery is how often people are told how it goes.
const progressEvery = time.Second

// progress tells how it goes.
func (c *collector) progress() {
	if c.options.Status == nil || time.Since(c.toldAt) < progressEvery {
		return
	}
	c.toldAt = time.Now()
	line := fmt.Sprintf("%s of %s: %s", time.Since(c.start).Round(time.Second), c.options.Duration,
		render.Plural(int(c.syns), "SYN"))
	line += fmt.Sprintf(", %d dropped or reset", c.drops)
	if r := c.fullest(); r != nil {
		line += fmt.Sprintf("; fullest accept queue: %d of %d on port %d", r.queue.Len, r.queue.Limit, r.listener.Port)
	}
	sayTo(c.options.Status, line)
}

// DiagnosisForms lists what diagnose's --output takes.
func DiagnosisForms() []string { return []string{"text", "json", "html"} }

// TellDiagnosis writes a diagnosis in one of these forms, and as HTML to the report, if there
// is one. The error is ErrWarned where a cause was found and that is to be told.
func TellDiagnosis(to io.Writer, writing Writing, form string, d event.Diagnosis, report *Report, exitCode bool) error {
	err := report.write(d)
	if form == "html" {
		err = errors.Join(err, render.Report(to, d))
	} else {
		err = errors.Join(err, render.Diagnosis(to, d, writing.options))
	}
	caused := slices.ContainsFunc(d.Findings, func(f event.Finding) bool { return f.Severity == event.SeverityCause })
	if err == nil && exitCode && caused {
		return ErrWarned
	}
	return err
}

// DiagnoseRecords judges what a file of a trace's records shows. Errors are those of [Replay].
func DiagnoseRecords(ctx context.Context, from io.Reader, options ReplayOptions, log *slog.Logger) (event.Diagnosis, error) {
	r := recordedStream{records: diagnose.Recording{Asked: options.Filters}}
	recount, err := replayTo(ctx, from, &r, options, log)
	if recount != nil {
		r.records.Recounted(*recount)
	}
	d := diagnose.Diagnose(r.records.Evidence())
	d.Origin, d.Kernel, d.JudgedBy = r.ready.Origin, r.ready.Kernel, &options.Program
	return d, err
}

// recordedStream makes evidence of records.
type recordedStream struct {
	records diagnose.Recording
	ready   event.Ready
}

func (r *recordedStream) Ready(ready event.Ready) error {
	r.ready = ready
	r.records.Add(&ready)
	return nil
}
func (r *recordedStream) Drop(d *event.Drop) error      { r.records.Add(d); return nil }
func (r *recordedStream) Held(h event.Held) error       { r.records.Add(&h); return nil }
func (r *recordedStream) Summary(s event.Summary) error { r.records.Add(&s); return nil }
func (r *recordedStream) Flush() error                  { return nil }
