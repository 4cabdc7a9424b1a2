// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/render"
)

// DefaultRingSize is the ring buffer's size in bytes unless asked otherwise.
func DefaultRingSize() uint32 { return load.DefaultRingSize() }

// Stream is where records go.
type Stream = render.Stream

// Backends lists what --backend takes.
func Backends() []string { return facts.Backends() }

// StageNames lists what --stage takes.
func StageNames() []string { return event.StageNames() }

// Formats lists what --output takes.
func Formats() []string { return []string{"table", "wide", "json"} }

// FormatPackets is what --output takes beyond that where there are packets.
const FormatPackets = "pcapng"

// Clocks lists what --time takes.
func Clocks() []string { return []string{"local", "utc", "relative"} }

// LabHelper runs this process as a server of the lab if it was started as one,
// and then returns true.
func LabHelper() bool { return server.HelperMain() }

// Writing is how to write to standard output.
type Writing struct{ Options render.Options }

// Screen is the terminal that is written to. Without one what is written is for programs as well:
// nothing is shortened, and numbers are digits alone.
type Screen struct {
	Terminal      bool
	Width, Height int // in characters, 0 for unknown
	Color         bool
}

// NewWriting reads --output and --time.
func NewWriting(format, clock string, screen Screen) (Writing, error) {
	formats := append(Formats(), FormatPackets)
	f := slices.Index(formats, format)
	if f < 0 {
		return Writing{}, Usage("--output %q: want one of %s", format,
			strings.Join(formats, ", "))
	}
	c := slices.Index(Clocks(), clock)
	if c < 0 {
		return Writing{}, Usage("--time %q: want one of %s", clock,
			strings.Join(Clocks(), ", "))
	}
	return Writing{render.Options{
		Format: [...]render.Format{render.FormatTable, render.FormatWide, render.FormatJSON,
			render.FormatPcapng}[f],
		Time: [...]render.Clock{render.ClockLocal, render.ClockUTC,
			render.ClockRelative}[c],
		Color: screen.Color, Width: screen.Width, Height: screen.Height,
		Plain: !screen.Terminal, Start: time.Now(),
	}}, nil
}

// WithNotes returns the same with a place for what is for people where the
// output is packets: standard error.
func (w Writing) WithNotes(to io.Writer) Writing {
	w.Options.Notes = to
	return w
}

// Stream returns a stream that writes records. Its Flush fails with EPIPE once
// nobody reads them any more. rate is what --rate is.
func (w Writing) Stream(to io.Writer, rate uint32) Stream {
	options := w.Options
	options.Rate = int(rate)
	return hangup{render.NewStream(to, options), ReaderGone(to)}
}

// Replay returns a stream that writes records of another time: what --rate was,
// and when it began, is in them.
func (w Writing) Replay(to io.Writer) Stream {
	options := w.Options
	options.Start = time.Time{}
	return hangup{render.NewStream(to, options), ReaderGone(to)}
}

// versionRecord is synspy version -o json.
type versionRecord struct {
	event.Header
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	Kernels string `json:"kernels"`
}

// kernels is the range that the programs are made for and tested on.
const kernels = "5.10 and newer, x86-64 and arm64"

// Version writes what this binary is.
func Version(to io.Writer, version, commit string, writing Writing) error {
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				commit = setting.Value
			}
		}
	}
	record := versionRecord{event.Head("version"), version, commit, runtime.Version(), kernels}
	if writing.Options.Format == render.FormatJSON {
		return render.WriteJSON(to, record)
	}
	if commit != "" {
		commit = " (" + commit + ")"
	}
	_, err := fmt.Fprintf(to, "synspy %s%s, %s, for Linux %s\n", version, commit, record.Go,
		kernels)
	return err
}

// LabRingSize has room for all records of any scenario.
const LabRingSize = 8 << 20
