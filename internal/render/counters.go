// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"io"
	"strconv"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// Plural writes "1 listener" and "3 listeners".
func Plural(n int, noun string) string {
	return plural(uint64(n), noun)
}

// Seconds writes a duration as people say it.
func Seconds(d time.Duration) string { return seconds(d) }

// CountersTable writes the counters of each namespace; in JSON one record for
// each. What a counter means is in the wide table.
func CountersTable(w io.Writer, records []event.Counters, opts Options) error {
	if opts.Format == FormatJSON {
		return writeCounters(w, records)
	}
	var rows [][]string
	for i := range records {
		r := &records[i]
		for _, c := range r.Counters {
			row := []string{strconv.FormatUint(r.NetNS, 10),
				narrow(namespaceName(r),
					opts), c.Name, opts.count(c.Value), sharedCell(c)}
			if opts.Format == FormatWide {
				row = []string{strconv.FormatUint(r.NetNS, 10), orUnknown(r.Name),
					firstPID(r), orUnknown(r.Comm),
					string(placeCell(nil, opts,
						&event.Drop{Pod: r.Pod, Container: r.Container})),
					c.Name, opts.count(c.Value), sharedCell(c), c.Meaning}
			}
			rows = append(rows, row)
		}
	}
	columns := []Column{{Title: "NETNS"}, {Title: "NAME"}, {Title: "COUNTER"},
		{Title: "VALUE", Right: true},
		{Style: dimStyle}}
	if opts.Format == FormatWide {
		columns = []Column{{Title: "NETNS"}, {Title: "NAME"}, {Title: "PID", Right: true},
			{Title: "COMM"},
			{Title: "CONTAINER"}, {Title: "COUNTER"}, {Title: "VALUE",
				Right: true}, {Style: dimStyle}, {Title: "MEANING"}}
	}
	if len(rows) == 0 {
		return nil
	}
	return Table(w, columns, rows, opts)
}

func writeCounters(w io.Writer, records []event.Counters) error {
	for i := range records {
		if err := WriteJSON(w, records[i]); err != nil {
			return err
		}
	}
	return nil
}

// namespaceName is a namespace's name, or else the first process in it.
func namespaceName(r *event.Counters) string {
	switch {
	case r.Name != "":
		return Terminal(r.Name)
	case len(r.PIDs) == 0:
		return unknown
	default:
		return firstPID(r) + " " + Terminal(r.Comm)
	}
}

// namespaceWidth keeps the tables at 80 columns.
const namespaceWidth = 20

func narrow(name string, opts Options) string {
	b, _ := elide([]byte(name), 0, opts.most(namespaceWidth), true)
	return string(b)
}

func firstPID(r *event.Counters) string {
	if len(r.PIDs) == 0 {
		return unknown
	}
	return strconv.FormatUint(uint64(r.PIDs[0]), 10)
}

func orUnknown(s string) string { return string(appendKnown(nil, s)) }

// sharedCell marks what is no proof against a listener.
func sharedCell(c event.CounterValue) string {
	if c.Shared {
		return "shared"
	}
	return ""
}

func dimStyle(string) string { return styleDim }

// CountersWatch writes what moved, interval by interval. A table says what a
// counter means when it moves first; the wide one in every row.
type CountersWatch struct {
	w         io.Writer
	opts      Options
	line      line
	columns   []watchColumn
	explained map[string]bool
}

// watchColumn is as column, of other records.
type watchColumn struct {
	column
	cell func([]byte, Options, *event.Counters, *event.CounterValue) []byte
}

// NewCountersWatch returns a watch of the options' format. It writes each
// interval at once.
func NewCountersWatch(w io.Writer, opts Options) *CountersWatch {
	c := &CountersWatch{w: w, opts: opts, explained: make(map[string]bool)}
	c.line.color = opts.Color
	return c
}

// Interval writes the counters that moved in one interval, if any.
func (c *CountersWatch) Interval(records []event.Counters) error {
	if c.opts.Format == FormatJSON {
		return writeCounters(c.w, records)
	}
	var out bytes.Buffer
	for i := range records {
		for j := range records[i].Counters {
			v := &records[i].Counters[j]
			c.row(&out, &records[i], v)
			if c.opts.Format == FormatTable && !c.explained[v.Name] && v.Meaning != "" {
				c.explained[v.Name] = true
				p := &printer{w: &out, opts: c.opts}
				p.text("         ", v.Meaning)
			}
		}
	}
	_, err := c.w.Write(out.Bytes())
	return err
}

func (c *CountersWatch) row(out *bytes.Buffer, r *event.Counters, v *event.CounterValue) {
	if c.columns == nil {
		c.columns = watchColumns(c.opts)
		c.line.limit = unlimited
		c.cells(out, func(b []byte, col *watchColumn) []byte {
			return append(b, col.title...)
		}, styleNone)
	}
	style := styleNone
	if v.Shared {
		style = styleDim
	}
	c.cells(out, func(b []byte, col *watchColumn) []byte {
		return col.cell(b, c.opts, r, v)
	}, style)
}

func (c *CountersWatch) cells(out *bytes.Buffer, cell func([]byte, *watchColumn) []byte,
	style string) {
	c.line.reset()
	for i := range c.columns {
		col := &c.columns[i]
		c.line.begin()
		c.line.style(style)
		c.line.buf = cell(c.line.buf, col)
		c.line.end(&col.column)
	}
	out.Write(c.line.finish())
}

// watchColumns fit 80 columns, unless they are wide.
func watchColumns(opts Options) []watchColumn {
	at := watchColumn{column{title: "TIME", width: 8, most: 12}, watchTime(time.TimeOnly)}
	netns := watchColumn{column{title: "NETNS", width: 10, most: opts.most(20)}, watchNetNS}
	name := watchColumn{column{title: "NAME", width: 12, most: opts.most(12), middle: true},
		watchName}
	counter := watchColumn{column{title: "COUNTER", width: 25, most: unlimited}, watchCounter}
	delta := watchColumn{column{title: "DELTA", width: 9, most: unlimited, right: true},
		watchDelta}
	rate := watchColumn{column{title: "RATE/S", width: 9, most: unlimited, right: true},
		watchRate}
	if opts.Format != FormatWide {
		return []watchColumn{at, netns, name, counter, delta, rate}
	}
	at.width, at.most, at.cell = 26, 26, watchTime("2006-01-02T15:04:05.000000")
	name.width, name.most = namespaceWidth, unlimited
	return []watchColumn{at, netns, name, counter, delta, rate,
		{column{title: "VALUE", width: 11, most: unlimited, right: true}, watchValue},
		{column{title: "", width: 6, most: unlimited}, watchShared},
		{column{title: "MEANING", most: unlimited}, watchMeaning},
	}
}

func watchTime(layout string) func([]byte, Options, *event.Counters, *event.CounterValue) []byte {
	return func(b []byte, o Options, r *event.Counters, _ *event.CounterValue) []byte {
		return appendTime(b, r.Time.Time, o, layout)
	}
}

func watchNetNS(b []byte, _ Options, r *event.Counters, _ *event.CounterValue) []byte {
	return appendNumber(b, r.NetNS)
}

func watchName(b []byte, _ Options, r *event.Counters, _ *event.CounterValue) []byte {
	return append(b, namespaceName(r)...)
}

func watchCounter(b []byte, _ Options, _ *event.Counters, v *event.CounterValue) []byte {
	return appendTerminal(b, v.Name)
}

func watchDelta(b []byte, o Options, _ *event.Counters, v *event.CounterValue) []byte {
	if v.Delta == nil {
		return append(b, unknown...)
	}
	return o.appendCount(b, *v.Delta)
}

func watchRate(b []byte, o Options, _ *event.Counters, v *event.CounterValue) []byte {
	switch {
	case v.Rate == nil:
		return append(b, unknown...)
	case *v.Rate >= 1000:
		return o.appendCount(b, uint64(*v.Rate+0.5))
	default:
		return strconv.AppendFloat(b, *v.Rate, 'f', 1, 64)
	}
}

func watchValue(b []byte, o Options, _ *event.Counters, v *event.CounterValue) []byte {
	return o.appendCount(b, v.Value)
}

func watchShared(b []byte, _ Options, _ *event.Counters, v *event.CounterValue) []byte {
	return append(b, sharedCell(*v)...)
}

func watchMeaning(b []byte, _ Options, _ *event.Counters, v *event.CounterValue) []byte {
	return appendTerminal(b, v.Meaning)
}
