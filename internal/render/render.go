// SPDX-License-Identifier: Apache-2.0

// Package render turns records into what people and programs read: the live
// stream, the finite tables, and NDJSON.
//
// It knows the records of package event and nothing of where they come from.
// Every string that another process chose (a comm, a cgroup, a container's
// name) is hostile: [Terminal] is the only way into a table, and JSON is valid
// UTF-8 that does not move the cursor of the terminal it is printed on.
package render

import (
	"io"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// Format is how records are written.
type Format uint8

// The formats of --output that this package knows.
const (
	FormatTable Format = iota
	FormatWide         // the table with everything a record knows, of any width
	FormatJSON
	FormatPcapng // of streams only: the packets themselves
)

// Clock is how a table writes times. JSON is always UTC.
type Clock uint8

// The clocks of --time.
const (
	ClockLocal Clock = iota
	ClockUTC
	ClockRelative // seconds since Options.Start
)

// Options say how to write.
type Options struct {
	Format Format
	Color  bool
	Time   Clock
	Start  time.Time // for ClockRelative
	Width  int       // of the terminal in columns, 0 for unknown
	Height int       // of the terminal in rows, 0 for unknown
	Plain  bool      // for programs, as in a pipe: nothing is shortened, and numbers are digits alone
	// Narrowed is the filters that keep drops out and count SYNs all the same, as text; empty
	// for none.
	Narrowed string
	Rate     int       // the --rate that held records back, to name it
	Notes    io.Writer // for people, where packets go to the stream; nil for nobody
}

// Stream writes the records of one run in their order. It buffers: drops are not sure to be written
// before Flush, while Ready and Summary flush. Errors are those of the writer. It is for one
// goroutine.
type Stream interface {
	Ready(event.Ready) error
	Drop(*event.Drop) error            // type "drop", or "cookie"
	Suppressed(event.Suppressed) error // type "suppressed", or "lost"
	Summary(event.Summary) error
	Flush() error
}
