// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
)

// recordedRuns distinguishes the runs of a recording. It is one window on one machine that is shown
// and judged, so that a second run is refused; the same one that comes again, as after cat a a, is
// passed over.
type recordedRuns struct {
	first   *event.Ready
	id      string
	records uint64 // of the run, in the copy that has most of them
	at      uint64 // of the copy that is being read
	ended   bool   // its summary came
	copies  uint64
}

// ready begins a run, or another copy of it: then it is false. The error wraps ErrUsage.
func (r *recordedRuns) ready(ready *event.Ready, text []byte) (bool, error) {
	id := ready.Run
	if id == "" { // of a synspy that gave none: what it wrote first has the time to the nanosecond
		sum := sha256.Sum256(text)
		id = hex.EncodeToString(sum[:])
	}
	switch {
	case r.first == nil && r.records > 0:
		return false, cli.Usage("a run begins after records of one whose beginning is missing: they may be the same packets\nread runs one by one")
	case r.first == nil:
		r.first, r.id, r.records, r.at = ready, id, 1, 1
		return true, nil
	case r.id != id:
		return false, cli.Usage("there are records of several runs: %s, and %s\nread runs one by one", runText(r.first), runText(ready))
	case !slices.Equal(r.first.Filters, ready.Filters):
		return false, cli.Usage("there are two extracts of the same run: one of %s, one of %s\nread them one by one",
			cmp.Or(event.FilterText(r.first.Filters),
				"all"), cmp.Or(event.FilterText(ready.Filters), "all"))
	}
	r.copies++
	r.at = 1
	return false, nil
}

// next reports whether a record is one that was not there before; nil is a line that is none, which
// a later copy may have whole. The error wraps ErrUsage.
func (r *recordedRuns) next(record any) (bool, error) {
	r.at++
	if r.at <= r.records {
		return false, nil
	}
	if r.ended {
		return false, cli.Usage("records come after the summary of their run: of another one, whose beginning is missing\nread runs one by one")
	}
	if record == nil {
		return true, nil
	}
	r.records = r.at
	if _, end := record.(*event.Summary); end {
		r.ended = true
	}
	return true, nil
}

// runText names a run as people know it.
func runText(r *event.Ready) string {
	text := "one"
	if r.Run != "" {
		text = r.Run
	}
	if !r.Time.IsZero() {
		text += " of " + r.Time.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	if r.Host != "" {
		text += " on " + r.Host
	}
	return text
}

// text says that copies were passed over, empty where there were none.
func (r *recordedRuns) text() string {
	if r.copies == 0 {
		return ""
	}
	times := "twice"
	if r.copies > 1 {
		times = fmt.Sprintf("%d times", r.copies+1)
	}
	return fmt.Sprintf("the run %s is there %s: it counts once", runText(r.first), times)
}
