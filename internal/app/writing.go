// SPDX-License-Identifier: Apache-2.0

package app

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
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/render"
)

// DefaultRingSize is the ring buffer's size in bytes unless asked otherwise.
func DefaultRingSize() uint32 { return probe.DefaultRingSize() }

// Stream is where records go.
type Stream = render.Stream

// Backends lists what --backend takes.
func Backends() []string { return probe.Backends() }

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
type Writing struct{ options render.Options }

// Screen is the terminal that is written to. Without one what is written is for programs as well: nothing is
// shortened, and numbers are digits alone.
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
		return Writing{}, usage("--output %q: want one of %s", format, strings.Join(formats, ", "))
	}
	c := slices.Index(Clocks(), clock)
	if c < 0 {
		return Writing{}, usage("--time %q: want one of %s", clock, strings.Join(Clocks(), ", "))
	}
	return Writing{render.Options{
		Format: [...]render.Format{render.FormatTable, render.FormatWide, render.FormatJSON, render.FormatPcapng}[f],
		Time:   [...]render.Clock{render.ClockLocal, render.ClockUTC, render.ClockRelative}[c],
		Color:  screen.Color, Width: screen.Width, Height: screen.Height, Plain: !screen.Terminal, Start: time.Now(),
	}}, nil
}

// WithNotes returns the same with a place for what is for people where the
// output is packets: standard error.
func (w Writing) WithNotes(to io.Writer) Writing {
	w.options.Notes = to
	return w
}

// Stream returns a stream that writes records. Its Flush fails with EPIPE once
// nobody reads them any more.
func (w Writing) Stream(to io.Writer, watch Watch) Stream {
	options := w.options
	options.Rate = int(watch.Rate)
	return attended{render.NewStream(to, options), readerGone(to)}
}

// Replay returns a stream that writes records of another time: what --rate was,
// and when it began, is in them.
func (w Writing) Replay(to io.Writer) Stream {
	options := w.options
	options.Start = time.Time{}
	return attended{render.NewStream(to, options), readerGone(to)}
}

// Validate finds usage errors that need no privileges to be found.
func (w Watch) Validate() error {
	if err := checkBackend(w.Backend); err != nil {
		return err
	}
	if err := probe.CheckRingSize(w.RingSize); err != nil {
		return usage("--ring-size: %w", err)
	}
	if w.BTF != "" {
		if err := probe.CheckBTF(w.BTF); err != nil {
			return usage("--btf: %w", err)
		}
	}
	return nil
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
	if writing.options.Format == render.FormatJSON {
		return render.WriteJSON(to, record)
	}
	if commit != "" {
		commit = " (" + commit + ")"
	}
	_, err := fmt.Fprintf(to, "synspy %s%s, %s, for Linux %s\n", version, commit, record.Go, kernels)
	return err
}

// LabRingSize has room for all records of any scenario.
const LabRingSize = 8 << 20

// Verdict writes what became of a scenario.
func (w Writing) Verdict(to io.Writer, v Verdict) error {
	if w.options.Format == render.FormatJSON {
		return render.WriteJSON(to, v)
	}
	word := "PASS"
	switch {
	case v.Cannot != "":
		word = "NONE"
	case !v.Passed:
		word = "FAIL"
	}
	if _, err := fmt.Fprintf(to, "%s  %s (%s, %.1f s)\n", word, v.Name, v.Backend, float64(v.DurationMs)/1000); err != nil {
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

// Judged writes what became of a scenario among others, and of one that failed
// its records.
func (w Writing) Judged(to io.Writer, j Judged) error {
	if err := w.Verdict(to, j.Verdict); err != nil || len(j.Records) == 0 {
		return err
	}
	records := render.NewStream(to, w.options)
	for i := range j.Records {
		if err := records.Drop(&j.Records[i]); err != nil {
			return err
		}
	}
	return records.Flush()
}

// Incident writes a diagnosis, and whether it is the right one.
func (w Writing) Incident(to io.Writer, v IncidentVerdict) error {
	if err := render.Diagnosis(to, v.Diagnosis, w.options); err != nil {
		return err
	}
	if w.options.Format == render.FormatJSON {
		return render.WriteJSON(to, v)
	}
	return w.Verdict(to, Verdict{Name: v.Name, Backend: v.Expected, Passed: v.Passed, Mismatches: v.Mismatches, DurationMs: v.DurationMs})
}
