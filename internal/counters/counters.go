// SPDX-License-Identifier: Apache-2.0

// Package counters reads the kernel's own counters, without BPF.
package counters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
	"github.com/synspy/synspy/internal/session"
)

// Options are those of synspy counters.
type Options struct {
	NetNS    string        // as --netns; empty for all namespaces
	All      bool          // also counters that are zero, or that did not move
	Watch    bool          // show what moves, until told to stop
	Interval time.Duration // of a watch
	Duration time.Duration // of a watch, 0: until told to stop
	Count    uint64        // intervals of a watch, 0: no limit
	Status   io.Writer     // for people: standard error
}

// ErrUnreadable says that these privileges do not let the counters be read.
var ErrUnreadable = errors.New("unable to read the counters")

// MinInterval is the shortest that counters are read at.
const MinInterval = 10 * time.Millisecond

// Run writes the listen-path counters of each network namespace, or in a
// watch what they move by. It uses no BPF. Errors wrap ErrUsage, ErrUnreadable,
// or are those of the writer.
func Run(ctx context.Context, to io.Writer, writing cli.Writing, options Options,
	log *slog.Logger) (err error) {
	if options.Interval < MinInterval {
		return cli.Usage("--interval %v: want %v or more", options.Interval, MinInterval)
	}
	if options.Duration < 0 {
		return cli.Usage("--duration %v: want a time like 30s", options.Duration)
	}
	reader := newCounterReader(options, log)
	defer func() { err = errors.Join(err, reader.names.Close()) }()
	if err := reader.choose(options.NetNS); err != nil {
		return err
	}
	readings, err := reader.read()
	if err != nil {
		return err
	}
	c := &counters{reader: reader, options: options, to: to, render: writing.Options}
	if options.Watch {
		return c.watch(ctx, readings)
	}
	return c.once(readings)
}

// choose finds the namespace that was asked for, if one was.
func (r *counterReader) choose(netns string) (err error) {
	if netns == "" {
		return nil
	}
	r.only, err = session.FindNetNS(netns)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: --netns: %w\n%s", ErrUnreadable, err, session.NeedsPtrace())
	}
	return err
}

// counters is a run.
type counters struct {
	reader  *counterReader
	options Options
	to      io.Writer
	render  render.Options
}

// once writes the values as they are.
func (c *counters) once(readings []reading) error {
	var records []event.Counters
	quiet := 0
	for _, r := range readings {
		values := c.values(r, reading{})
		if len(values) == 0 {
			quiet++
		}
		records = append(records,
			event.Counters{NetNS: r.ns.Inode, Time: event.Time{Time: r.at},
				Counters: values})
	}
	c.reader.describe(records, readings)
	if err := render.CountersTable(c.to, records, c.render); err != nil {
		return err
	}
	if quiet > 0 {
		c.say(fmt.Sprintf("%d of %d network namespaces have counted nothing yet; --all shows zeros too", quiet, len(readings)))
	}
	return nil
}

// values picks the counters that are told of a reading, in the order of the table
// of meanings. With an earlier reading of the same namespace they carry what they
// moved by, and only those that moved are picked.
func (c *counters) values(now, before reading) []event.CounterValue {
	values := []event.CounterValue{}
	elapsed := now.at.Sub(before.at)
	for _, m := range event.Meanings() {
		value, ok := now.counters[m.Name]
		if !ok {
			continue // this kernel does not have it
		}
		v := event.CounterValue{Name: m.Name, Value: value, Shared: m.Shared,
			Meaning: m.Says, Hint: m.Hint}
		moved := value > 0
		if before.counters != nil {
			delta := value - before.counters[m.Name]
			moved, v.Delta = delta > 0, &delta
			if elapsed >= MinInterval {
				rate := math.Round(1000*float64(delta)/elapsed.Seconds()) / 1000
				v.Rate = &rate
			}
		}
		if moved || c.options.All {
			values = append(values, v)
		}
	}
	return values
}

func (c *counters) say(line string) { cli.SayTo(c.options.Status, line) }
