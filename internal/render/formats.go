// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"

	"github.com/synspy/synspy/internal/event"
)

// Diagnosis writes what a session found: the report that people read, or in JSON
// one record.
func Diagnosis(w io.Writer, d event.Diagnosis, opts Options) error {
	if opts.Format != FormatJSON {
		return writeDiagnosis(w, &d, opts)
	}
	head(&d.Header, "diagnosis")
	d.Findings, d.Ledger, d.Timeline = append([]event.Finding{}, d.Findings...), list(d.Ledger),
		list(d.Timeline)
	for i := range d.Findings {
		f := &d.Findings[i]
		f.Evidence, f.Fix = list(f.Evidence), list(f.Fix)
	}
	return WriteJSON(w, d)
}

// NewStream returns the stream of the options' format.
func NewStream(w io.Writer, opts Options) Stream {
	switch opts.Format {
	case FormatJSON:
		return newJSONStream(w)
	case FormatPcapng:
		return newPcapngStream(w, opts)
	default:
		return newTableStream(w, opts)
	}
}
