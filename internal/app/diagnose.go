// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/listing"
	"github.com/synspy/synspy/internal/recording"
	"github.com/synspy/synspy/internal/render"
)

// DiagnosisForms lists what diagnose's --output takes.
func DiagnosisForms() []string { return []string{"text", "json", "html"} }

// TellDiagnosis writes a diagnosis in one of these forms, and as HTML to the report, if there
// is one. The error is ErrWarned where a cause was found and that is to be told.
func TellDiagnosis(to io.Writer, writing cli.Writing, form string, d event.Diagnosis,
	report *Report, exitCode bool) error {
	err := report.write(d)
	if form == "html" {
		err = errors.Join(err, render.Report(to, d))
	} else {
		err = errors.Join(err, render.Diagnosis(to, d, writing.Options))
	}
	caused := slices.ContainsFunc(d.Findings,
		func(f event.Finding) bool { return f.Severity == event.SeverityCause })
	if err == nil && exitCode && caused {
		return listing.ErrWarned
	}
	return err
}

// DiagnoseRecords judges what a file of a trace's records shows. Errors are those of [Replay].
func DiagnoseRecords(ctx context.Context, from io.Reader, options recording.ReplayOptions,
	log *slog.Logger) (event.Diagnosis, error) {
	r := recordedStream{records: diagnose.Recording{Asked: options.Filters}}
	recount, err := recording.ReplayTo(ctx, from, &r, options, log)
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
func (r *recordedStream) Drop(d *event.Drop) error            { r.records.Add(d); return nil }
func (r *recordedStream) Suppressed(h event.Suppressed) error { r.records.Add(&h); return nil }
func (r *recordedStream) Summary(s event.Summary) error       { r.records.Add(&s); return nil }
func (r *recordedStream) Flush() error                        { return nil }
