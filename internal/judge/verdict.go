// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"io"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/render"
)

// WriteVerdict writes what became of a scenario.
func WriteVerdict(w cli.Writing, to io.Writer, v Verdict) error {
	if w.Options.Format == render.FormatJSON {
		return render.WriteJSON(to, v)
	}
	word := "PASS"
	switch {
	case v.Cannot != "":
		word = "NONE"
	case !v.Passed:
		word = "FAIL"
	}
	if _, err := fmt.Fprintf(to, "%s  %s (%s, %.1f s)\n", word, v.Name, v.Backend,
		float64(v.DurationMs)/1000); err != nil {
		return err
	}
	details := v.Mismatches
	if v.Cannot != "" {
		details = append(details, v.Cannot)
	}
	for _, m := range details {
		if _, err := fmt.Fprintf(to, "      %s\n", render.Terminal(m)); err != nil {
			return err
		}
	}
	return nil
}

// WriteJudged writes what became of a scenario among others, and of one that failed
// its records.
func WriteJudged(w cli.Writing, to io.Writer, j Judged) error {
	if err := WriteVerdict(w, to, j.Verdict); err != nil || len(j.Records) == 0 {
		return err
	}
	records := render.NewStream(to, w.Options)
	for i := range j.Records {
		if err := records.Drop(&j.Records[i]); err != nil {
			return err
		}
	}
	return records.Flush()
}

// WriteIncident writes a diagnosis, and whether it is the right one.
func WriteIncident(w cli.Writing, to io.Writer, v IncidentVerdict) error {
	if err := render.Diagnosis(to, v.Diagnosis, w.Options); err != nil {
		return err
	}
	if w.Options.Format == render.FormatJSON {
		return render.WriteJSON(to, v)
	}
	return WriteVerdict(w, to, Verdict{Name: v.Name, Backend: v.Expected, Passed: v.Passed,
		Mismatches: v.Mismatches, DurationMs: v.DurationMs})
}
