// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strings"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// provenance says of what machine and time a diagnosis is, and which synspy made it by which
// command. What is unknown is left out.
func provenance(d *event.Diagnosis, clock Clock) []string {
	var lines, machine []string
	if d.Host != "" {
		machine = append(machine, "host "+foreign(d.Host))
	}
	if d.Kernel != "" {
		machine = append(machine, "Linux "+foreign(d.Kernel))
	}
	if when := window(d, clock); when != "" {
		machine = append(machine, when)
	}
	if len(machine) > 0 {
		lines = append(lines, strings.Join(machine, ", "))
	}
	watched := madeBy(d.Version, d.Command)
	switch {
	case d.JudgedBy == nil && watched != "":
		lines = append(lines, watched)
	case d.JudgedBy != nil:
		if watched != "" {
			lines = append(lines, "recorded by "+watched)
		}
		lines = append(lines, "judged by "+madeBy(d.JudgedBy.Version, d.JudgedBy.Command))
	}
	return lines
}

func madeBy(version, command string) string {
	if version == "" && command == "" {
		return ""
	}
	by := "synspy"
	if version != "" {
		by += " " + foreign(version)
	}
	if command != "" {
		by += ": " + foreign(command)
	}
	return by
}

// window is when was watched, with the date and the zone: a report is read on another day, in
// another place.
func window(d *event.Diagnosis, clock Clock) string {
	if d.Time.IsZero() {
		return ""
	}
	from := d.Time.Local()
	if clock == ClockUTC {
		from = d.Time.UTC()
	}
	to := from.Add(time.Duration(d.WindowS * float64(time.Second)))
	layout := time.TimeOnly
	if from.YearDay() != to.YearDay() || from.Year() != to.Year() {
		layout = time.DateTime
	}
	return "from " + from.Format(time.DateTime) + " to " + to.Format(layout+" MST")
}
