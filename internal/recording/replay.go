// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

// ReplayOptions are those of synspy trace --read.
type ReplayOptions struct {
	Filter  RecordFilter
	Filters []event.Filter // the same, as they were given
	Count   uint64         // drop records, 0: no limit
	Status  io.Writer      // for people: standard error
	Record  *Recording     // keeps the records, nil for none
	Program event.Program  // this synspy
}

// OpenRecords opens the file of a --read. An error wraps ErrUsage.
func OpenRecords(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, cli.Usage("--read: %w", err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory", path)
	}
	if err != nil {
		return nil, errors.Join(cli.Usage("--read: %w", err), file.Close())
	}
	return file, nil
}

// Replay hands the records of a file to the stream as a trace would. What the filters
// keep out, the summary is counted again without. A line that is no
// record is passed over and is an error at the end, so that all that can be read
// is shown; a record of another schema version ends it, and so does a second run.
func Replay(ctx context.Context, from io.Reader, stream cli.Stream, options ReplayOptions,
	log *slog.Logger) error {
	_, err := ReplayTo(ctx, from, stream, options, log)
	return err
}

// ReplayTo is Replay, and says what is not known of what the filters ask for; nil where they keep
// nothing out.
func ReplayTo(ctx context.Context, from io.Reader, stream cli.Stream, options ReplayOptions,
	log *slog.Logger) (*event.Recount, error) {
	if options.Record.is(from) {
		return nil, errors.Join(cli.Usage("--read and --write name the same file"),
			options.Record.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ctx, stream = options.Record.Alongside(ctx, stream)
	r := &replay{stream: stream, options: options, log: log, unknown: make(map[string]uint64)}
	r.recount = newRecount(&r.options.Filter, options.Filters)
	err := errors.Join(r.run(ctx, from), options.Record.Close())
	if !r.recount.needed() {
		return nil, err
	}
	return r.recount.about(), err
}

// replay is a running replay.
type replay struct {
	stream    cli.Stream
	options   ReplayOptions
	log       *slog.Logger
	lines     uint64
	runs      recordedRuns
	recount   *recount
	records   uint64 // drop and cookie records in the file
	drops     uint64 // of those shown, those that count for --count
	summaries uint64
	held      uint64            // packets that the records of those held back count
	unknown   map[string]uint64 // records of types that are none of a trace
	broken    error             // the first line that is no record
	breaks    uint64
}

func (r *replay) run(ctx context.Context, from io.Reader) error {
	lines := make(chan line, 256)
	go readLines(ctx, from, lines)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return cli.IgnoreClosedPipe(r.stream.Flush())
		case <-tick.C:
			if err := r.stream.Flush(); err != nil {
				return cli.IgnoreClosedPipe(err)
			}
		case l, ok := <-lines:
			if !ok {
				return r.end()
			}
			if err := r.line(l); err != nil {
				return errors.Join(cli.IgnoreClosedPipe(err),
					cli.IgnoreClosedPipe(r.stream.Flush()))
			}
		}
	}
}

// line is a record's journey: decoded, judged, shown.
func (r *replay) line(l line) error {
	if l.err != nil {
		return l.err
	}
	r.lines++
	for text := l.text; len(text) > 0; {
		var rest []byte
		record, err := event.Decode(text)
		if err != nil &&
			!errors.Is(err,
				event.ErrVersion) { // files put together may lack an end of line in between
			text, rest = cutRecord(text)
			if rest != nil {
				record, err = event.Decode(text)
			}
		}
		if err := r.decoded(record, text, err, l.cut && rest == nil); err != nil {
			return err
		}
		text = rest
	}
	return nil
}

// recordStart is how a record begins; within one it cannot stand, since quotes are escaped there.
var recordStart = []byte(`{"v":`)

// cutRecord takes off a line what stands before a record that begins later in it. The rest is nil
// where none does.
func cutRecord(text []byte) (first, rest []byte) {
	if at := bytes.Index(text[1:], recordStart); at >= 0 {
		return text[:at+1], text[at+1:]
	}
	return text, nil
}

func (r *replay) decoded(record any, text []byte, err error, cut bool) error {
	switch {
	case errors.Is(err, event.ErrVersion):
		return fmt.Errorf("line %d: %w", r.lines, err)
	case err != nil && cut:
		err = fmt.Errorf("line %d, the last one, was cut short after %d bytes", r.lines,
			len(text))
	case err != nil:
		err = fmt.Errorf("line %d is no record: %w", r.lines, err)
	}
	ready, begins := record.(*event.Ready)
	var fresh bool
	var refused error
	if begins && err == nil {
		fresh, refused = r.runs.ready(ready, text)
	} else {
		fresh, refused = r.runs.next(record)
	}
	if refused != nil || !fresh {
		return refused
	}
	if err != nil {
		return r.damaged(err)
	}
	if err := r.believe(record); err != nil {
		return r.damaged(fmt.Errorf("line %d is not believed: %w", r.lines, err))
	}
	switch record := record.(type) {
	case *event.Ready:
		r.say("recorded" + strings.TrimPrefix(render.StatusLine(*record), "watching"))
		handed := *record
		handed.Filters = slices.Concat(record.Filters, r.options.Filters)
		return r.stream.Ready(handed)
	case *event.Drop:
		return r.drop(record)
	case *event.Suppressed:
		if !r.recount.withoutRecord(record) {
			return nil
		}
		return r.stream.Suppressed(*record)
	case *event.Summary:
		return r.summary(record)
	case *event.UnknownType:
		if len(r.unknown) < unknownAtMost || r.unknown[record.Type] > 0 {
			r.unknown[record.Type]++
		}
	}
	return nil
}

// unknownAtMost bounds the unknown types that are remembered by name.
const unknownAtMost = 8

// Damaged is what [Replay] returns where lines of a recording are no records: all others were read.
type Damaged struct{ error }

func (r *replay) damaged(err error) error {
	r.breaks++
	if r.broken == nil {
		r.broken = Damaged{err}
	}
	return nil
}

func (r *replay) drop(d *event.Drop) error {
	r.records++
	if !r.recount.drop(d) {
		return nil
	}
	if r.options.Count > 0 && r.drops >= r.options.Count {
		r.recount.pass(d)
		return nil
	}
	if !d.Action.IsZero() && d.Action != event.ActionIgnored {
		r.drops++
	}
	return r.stream.Drop(d)
}

// summary is the recorded one, or, where not everything passed, that of what did.
func (r *replay) summary(s *event.Summary) error {
	r.summaries++
	if !r.recount.needed() {
		return r.stream.Summary(*s)
	}
	for _, h := range r.recount.surplus {
		if err := r.stream.Suppressed(h); err != nil {
			return err
		}
	}
	if err := r.stream.Flush(); err != nil {
		return err
	}
	r.say(fmt.Sprintf("%s of %s shown%s", render.Thousands(r.recount.delivered),
		render.Plural(int(r.records), "record"),
		r.recount.text()))
	return r.stream.Summary(*r.recount.summary(s))
}

func (r *replay) end() error {
	if err := r.stream.Flush(); err != nil {
		return cli.IgnoreClosedPipe(err)
	}
	if again := r.runs.text(); again != "" {
		r.say(again)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.unknown)) {
		n := r.unknown[kind]
		r.say(fmt.Sprintf("passed over %s of type %q, which is none of a trace's",
			render.Plural(int(n), "record"), kind))
	}
	if r.summaries == 0 {
		r.say("there is no summary: the recording did not come to its end")
	}
	if r.breaks > 1 {
		return fmt.Errorf("%w\nin all, %s lines are no records", r.broken,
			render.Thousands(r.breaks))
	}
	return r.broken
}

func (r *replay) say(text string) { cli.SayTo(r.options.Status, render.Terminal(text)) }

// line is one line of a file, without its end.
type line struct {
	text []byte
	cut  bool // the file ended before the line did
	err  error
}

// longestLine bounds what one record may take: a summary has a row for every
// listener that was seen.
const longestLine = 256 << 20

// readLines reads until the file or the context ends; reading may block for ever.
func readLines(ctx context.Context, from io.Reader, to chan<- line) {
	defer close(to)
	reader := bufio.NewReaderSize(from, 1<<16)
	for {
		l := readLine(reader)
		if errors.Is(l.err, io.EOF) {
			return
		}
		select {
		case to <- l:
		case <-ctx.Done():
			return
		}
		if l.err != nil || l.cut {
			return
		}
	}
}

func readLine(reader *bufio.Reader) line {
	var text []byte
	for {
		part, err := reader.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case err == nil:
			return line{text: text[:len(text)-1]}
		case errors.Is(err, io.EOF) && len(text) > 0:
			return line{text: text, cut: true}
		case !errors.Is(err, bufio.ErrBufferFull):
			return line{err: err}
		case len(text) > longestLine:
			return line{err: fmt.Errorf("a line of more than %d bytes is no record",
				longestLine)}
		}
	}
}
