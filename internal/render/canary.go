// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// Canary writes a canary's records, each at once, and at the end the summaries.
type Canary struct {
	w       io.Writer
	opts    Options
	line    line
	columns []canaryColumn
}

// canaryColumn is as column, of other records.
type canaryColumn struct {
	column
	cell func([]byte, Options, *event.Canary) []byte
}

// NewCanary returns a writer of the options' format. Targets are those that will
// be probed, for the width of their column.
func NewCanary(w io.Writer, opts Options, targets []string) *Canary {
	c := &Canary{w: w, opts: opts}
	c.line.color, c.line.limit = opts.Color, unlimited
	widest := 0
	for _, t := range targets {
		widest = max(widest, len(Terminal(t)))
	}
	c.columns = canaryColumns(opts, widest)
	return c
}

// Probe writes one line.
func (c *Canary) Probe(r event.Canary) error {
	if c.opts.Format == FormatJSON {
		return WriteJSON(c.w, r)
	}
	var out bytes.Buffer
	if !c.begun() {
		c.cells(&out, func(b []byte, col *canaryColumn) []byte {
			return append(b, col.title...)
		}, styleNone)
	}
	c.cells(&out, func(b []byte, col *canaryColumn) []byte {
		return col.cell(b, c.opts, &r)
	}, canaryStyle(&r))
	_, err := c.w.Write(out.Bytes())
	return err
}

// begun reports whether a line was written.
func (c *Canary) begun() bool {
	return c.line.want > 0
}

func (c *Canary) cells(out *bytes.Buffer, cell func([]byte, *canaryColumn) []byte, style string) {
	c.line.reset()
	for i := range c.columns {
		col := &c.columns[i]
		c.line.begin()
		if col.color {
			c.line.style(style)
		}
		c.line.buf = cell(c.line.buf, col)
		c.line.end(&col.column)
	}
	out.Write(c.line.finish())
}

func canaryStyle(r *event.Canary) string {
	switch {
	case r.Outcome == event.CanaryPending:
		return styleDim
	case r.Outcome != event.CanaryConnected:
		return styleRed
	case r.Retransmits != nil && *r.Retransmits > 0:
		return styleYellow
	default:
		return styleNone
	}
}

func canaryColumns(opts Options, targetWidth int) []canaryColumn {
	columns := []canaryColumn{
		{column{title: "TIME", width: 8, most: 12}, canaryTime(time.TimeOnly)},
		{column{title: "TARGET", width: min(max(targetWidth, 6), 32), most: opts.most(32),
			middle: true}, func(b []byte, _ Options, r *event.Canary) []byte {
			return appendTerminal(b, r.Target)
		}},
		{column{title: "SEQ", width: 4, most: unlimited, right: true},
			func(b []byte, _ Options, r *event.Canary) []byte {
				return appendNumber(b, r.Seq)
			}},
		{column{title: "OUTCOME", width: 11, most: 11, color: true},
			func(b []byte, _ Options, r *event.Canary) []byte {
				return append(b, r.Outcome...)
			}},
		{column{title: "TIME TAKEN", width: 10, most: unlimited, right: true, color: true},
			func(b []byte, _ Options, r *event.Canary) []byte {
				switch {
				case r.LatencyMs != nil:
					return append(b, milliseconds(*r.LatencyMs)...)
				case r.WaitedMs != nil &&
					(r.Outcome == event.CanaryTimeout ||
						r.Outcome == event.CanaryPending):
					return append(append(b, '>'), milliseconds(*r.WaitedMs)...)
				case r.WaitedMs != nil:
					return append(b, milliseconds(*r.WaitedMs)...)
				default:
					return append(b, unknown...)
				}
			}},
		{column{title: "RTT", width: 9, most: unlimited, right: true},
			func(b []byte, _ Options, r *event.Canary) []byte {
				if r.RTTMs == nil {
					return append(b, unknown...)
				}
				return append(b, milliseconds(*r.RTTMs)...)
			}},
		{column{title: "AGAIN", width: 5, most: unlimited, right: true, color: true},
			func(b []byte, _ Options, r *event.Canary) []byte {
				if r.Retransmits == nil {
					return append(b, unknown...)
				}
				return strconv.AppendUint(b, uint64(*r.Retransmits), 10)
			}},
	}
	if opts.Format == FormatWide {
		columns[0].width, columns[0].most, columns[0].cell = 26, 26,
			canaryTime("2006-01-02T15:04:05.000000")
		columns[1].width, columns[1].most = max(targetWidth, 6), unlimited
		columns = append(columns,
			canaryColumn{column{title: "SERVER", width: 21, most: unlimited},
				func(b []byte, _ Options, r *event.Canary) []byte {
					return appendCanaryEnd(b, r.Server)
				}},
			canaryColumn{column{title: "CLIENT", width: 21, most: unlimited},
				func(b []byte, _ Options, r *event.Canary) []byte {
					return appendCanaryEnd(b, r.Client)
				}})
	}
	return append(columns,
		canaryColumn{column{most: unlimited},
			func(b []byte, _ Options, r *event.Canary) []byte {
				return appendTerminal(b, r.Note)
			}})
}

func appendCanaryEnd(b []byte, e *event.Endpoint) []byte {
	if e == nil {
		return append(b, unknown...)
	}
	return appendEndpoint(b, e.Addr, e.Port)
}

func canaryTime(layout string) func([]byte, Options, *event.Canary) []byte {
	return func(b []byte, o Options, r *event.Canary) []byte {
		return appendTime(b, r.Time.Time, o, layout)
	}
}

// milliseconds writes 0.213 ms, 12.4 ms, 1.003 s.
func milliseconds(ms float64) string {
	switch {
	case ms >= 1000:
		return strconv.FormatFloat(ms/1000, 'f', 3, 64) + " s"
	case ms >= 10:
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	default:
		return strconv.FormatFloat(ms, 'f', 3, 64) + " ms"
	}
}

// Summaries writes what became of each target.
func (c *Canary) Summaries(summaries []event.CanarySummary) error {
	if c.opts.Format == FormatJSON {
		for _, s := range summaries {
			if err := WriteJSON(c.w, s); err != nil {
				return err
			}
		}
		return nil
	}
	p := &printer{w: c.w, opts: c.opts}
	for i := range summaries {
		if i > 0 || c.begun() {
			p.line("")
		}
		p.canary(&summaries[i])
	}
	return p.err
}

func (p *printer) canary(s *event.CanarySummary) {
	head := Terminal(s.Target)
	if s.Server != nil {
		if at := string(appendEndpoint(nil, s.Server.Addr, s.Server.Port)); at != s.Target {
			head += " (" + at + ")"
		}
	}
	p.line(head + ": " + p.opts.plural(s.Sent, "probe") + " in " +
		seconds(time.Duration(s.DurationMs)*time.Millisecond))
	var parts []string
	for _, o := range event.CanaryOutcomes() {
		if n := s.Outcomes[o]; n > 0 {
			parts = append(parts, p.opts.count(n)+" "+string(o))
		}
	}
	if s.Skipped > 0 {
		parts = append(parts,
			p.opts.count(s.Skipped)+" not sent: too many still waited for an answer")
	}
	if len(parts) > 0 {
		p.text("  ", strings.Join(parts, ", "))
	}
	p.text("  ",
		p.opts.plural(s.Retransmits, "SYN")+" sent again, in "+p.opts.plural(
			s.Retransmitted, "probe"))
	p.distribution("  connect   ", s.Latency)
	p.distribution("  round trip", s.RTT)
	p.text("  ", s.Verdict)
	p.histogram(s.Histogram)
}

func (p *printer) distribution(label string, d *event.CanaryLatency) {
	if d == nil {
		return
	}
	p.line(label + "  min " + milliseconds(d.Min) + ", p50 " + milliseconds(d.P50) + ", p90 " +
		milliseconds(d.P90) +
		", p99 " + milliseconds(d.P99) + ", max " + milliseconds(d.Max))
}

// histogramWidth is the longest bar's.
const histogramWidth = 40

func (p *printer) histogram(buckets []event.CanaryBucket) {
	most, again := uint64(0), uint64(0)
	for _, b := range buckets {
		most, again = max(most, b.Count), again+b.Retransmitted
	}
	if most == 0 {
		return
	}
	var rows [][]string
	for _, b := range buckets {
		row := []string{"  " + step(b.FromMs) + " - " + step(b.ToMs), p.opts.count(b.Count),
			canaryBar(b.Count, most)}
		if b.Retransmitted > 0 {
			row[2] += "  " + p.opts.count(b.Retransmitted) + " with a SYN sent again"
		}
		rows = append(rows, row)
	}
	style := func(cell string) string {
		if again > 0 && strings.Contains(cell, "sent again") {
			return styleYellow
		}
		return styleGreen
	}
	p.table([]Column{{Title: "  CONNECT TOOK"}, {Title: "COUNT", Right: true}, {Style: style}},
		rows)
}

// canaryBar shows that one of very many is not none.
func canaryBar(n, most uint64) string {
	if n == 0 {
		return ""
	}
	return strings.Repeat("█", max(int(n*histogramWidth/most), 1))
}

// step writes the edge of a bucket: 50 µs, 2 ms, 1 s.
func step(ms float64) string {
	switch {
	case ms >= 1000:
		return strconv.FormatFloat(ms/1000, 'f', -1, 64) + " s"
	case ms < 1:
		return strconv.FormatFloat(ms*1000, 'f', 0, 64) + " µs"
	default:
		return strconv.FormatFloat(ms, 'f', -1, 64) + " ms"
	}
}
