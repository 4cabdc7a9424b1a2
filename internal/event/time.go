// SPDX-License-Identifier: Apache-2.0

package event

import "time"

// Time is a moment of the wall clock, in JSON as RFC 3339 in UTC with exactly
// nine digits of nanoseconds, so that records sort as text.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000000000Z"

// MarshalJSON writes the fixed-width form.
func (t Time) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, len(timeLayout)+2)
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, timeLayout)
	return append(b, '"'), nil
}
