package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

// DiagnoseOptions are those of synspy diagnose beyond what to watch.
type DiagnoseOptions struct {
	Watch    Watch
	Filter   string // what was asked for, as text; empty for everything
	Duration time.Duration
	Status   io.Writer // for people: standard error; nil for nobody
}

// diagnoseRate is how many records a second and listener are looked at one by one; the
// counts know of all.
const diagnoseRate = 1000

// Diagnose watches for the duration, or until the context ends, and judges what it saw.
// Errors are those of [Trace].
func Diagnose(ctx context.Context, options DiagnoseOptions, log *slog.Logger) (event.Diagnosis, error) {
	watch := options.Watch
	watch.Rate = diagnoseRate
	s, err := openUntil(ctx, watch, log)
	if err != nil {
		return event.Diagnosis{}, err
	}
	c := newCollector(s, options)
	ctx, cancel := context.WithTimeout(ctx, options.Duration)
	defer cancel()
	c.begin(ctx)
	c.trace = newTrace(s, c, TraceOptions{Watch: watch})
	err = c.trace.run(ctx)
	c.end()
	if err = errors.Join(err, s.close()); err != nil {
		return event.Diagnosis{}, err
	}
	return diagnose.Diagnose(&c.evidence), nil
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
	_, _ = fmt.Fprintln(c.options.Status, "synspy: "+line)
}
