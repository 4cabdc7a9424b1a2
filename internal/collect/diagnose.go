// SPDX-License-Identifier: Apache-2.0

// Package collect gathers the evidence of a diagnosis while a trace runs: of queues, threads, and
// the network around the listeners.
package collect

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/collect/network"
	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/session"
	"github.com/synspy/synspy/internal/trace"
)

// DiagnoseOptions are those of synspy diagnose beyond what to watch.
type DiagnoseOptions struct {
	Watch    session.Watch
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
func Diagnose(ctx context.Context, options DiagnoseOptions, log *slog.Logger) (event.Diagnosis,
	error) {
	watch := options.Watch
	watch.Cookies, watch.Accepts = true, true
	if err := cli.EnoughFiles(
		cli.FilesToLoad + cli.FilesToSample + runtime.NumCPU()); err != nil {
		return event.Diagnosis{}, err
	}
	diverted := network.FindDiversions(&watch.Filter)
	watch.Filter.Mapped = diverted.Mapped()
	s, err := session.OpenUntil(ctx, watch, log)
	if err != nil {
		return event.Diagnosis{}, err
	}
	s.Listeners.Keep = session.MaxKnown // a window's evidence names them all
	c := newCollector(s, options)
	c.diverted = diverted
	ctx, cancel := context.WithTimeout(ctx, options.Duration)
	defer cancel()
	if err := c.begin(ctx); err != nil {
		return event.Diagnosis{}, errors.Join(err, c.close(), s.Close())
	}
	if options.Begun != nil {
		options.Begun()
	}
	err = trace.New(s, c, trace.Options{Watch: watch, Tick: session.PollInterval}).Run(ctx)
	if unclosed := c.close(); unclosed != nil {
		log.Debug("close the watch over strays", "error", unclosed)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return event.Diagnosis{}, err
	}
	d := diagnose.Diagnose(&c.evidence)
	d.Origin, d.Kernel = s.Origin, kernel.Release()
	return d, nil
}
