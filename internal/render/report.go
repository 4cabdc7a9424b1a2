// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	_ "embed" // the template and its style
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/event"
)

//go:embed report.gohtml
var reportTemplate string

//go:embed report.css
var reportStyle string

// Report writes a diagnosis as one HTML file that needs nothing else: no script,
// no network (its own policy forbids both), pictures inline. Lists are bounded, so
// that it stays under 1 MiB whatever the diagnosis holds.
func Report(w io.Writer, d event.Diagnosis) error {
	page, err := template.New("report").Funcs(template.FuncMap{
		"s":        foreign, // every string from a diagnosis goes through it
		"sentence": sentence,
		"n":        Thousands,
		"num":      func(v float64) string { return number(v, Options{}) },
		"ms":       wait,
		"inc":      func(i int) int { return i + 1 },
	}).Parse(reportTemplate)
	if err != nil {
		return fmt.Errorf("parse report: %w", err)
	}
	var out bytes.Buffer
	for keep := reportFindings; keep > 0; keep /= 2 {
		out.Reset()
		if err := page.Execute(&out, newReport(&d, keep)); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if out.Len() <= reportSize {
			break
		}
	}
	_, err = w.Write(out.Bytes())
	return err
}

// report is a diagnosis as the template shows it. Its strings are safe; those it
// takes over from the diagnosis are escaped there.
type report struct {
	Style     template.CSS
	Tone      string // of the verdict: cause, contributing, note, healthy
	Verdict   string
	When      string
	About     []string // of what machine and time it is, and who made it
	Tiles     []tile
	Findings  []reportFinding
	MoreFinds int
	Listeners []reportListener
	More      int // listeners that are not shown
	Causes    []bar
	Clients   []bar
	Cannot    []event.CannotSupport
	Ledger    []event.LedgerRow
	LedgerHas bool // one was kept
	Balanced  bool
}

type tile struct{ Value, Label, Tone string }

type reportFinding struct {
	event.Finding
	Tone, About, Means string
	Seen               []seenRow
}

type seenRow struct{ What, Value string }

type reportListener struct {
	Name, About string
	Facts       []tile
	Chart       *chart
	Waits       []bar
	Stacks      []reportStack
	WhatIf      *event.WhatIf
	WhatIfRows  []whatIfRow
}

type reportStack struct {
	Head   string
	Frames []string
	Share  float64 // percent of the time of all
	Open   bool
}

type whatIfRow struct {
	event.WhatIfRow
	Size       string // of the queue
	Standstill string
	Percent    float64 // of the longest bar
	Better     bool    // drops nothing
}

// bar is one of a horizontal bar chart.
type bar struct {
	Label, Value string
	Percent      float64 // of the longest
	Tone         string
}

// newReport keeps so many findings and listeners.
func newReport(d *event.Diagnosis, keep int) *report {
	listeners := min(keep, reportListeners)
	r := &report{Style: template.CSS(reportStyle), Tone: "healthy", Verdict: d.Verdict,
		MoreFinds: max(len(d.Findings)-keep, 0), More: max(len(d.Listeners)-listeners, 0),
		Cannot: first(d.Cannot,
			reportRows), LedgerHas: d.Balanced != nil, Balanced: d.Balanced != nil &&
			*d.Balanced}
	if len(d.Findings) > 0 {
		r.Tone = tone(d.Findings[0])
	}
	r.When = seconds(time.Duration(d.WindowS*float64(time.Second))) + " watched"
	r.About = provenance(d, ClockUTC)
	for _, f := range first(d.Findings, keep) {
		r.Findings = append(r.Findings, newReportFinding(f))
	}
	rows, _ := fewerShared(event.Summary{Ledger: d.Ledger, Counts: d.Counts})
	for _, row := range rows {
		if len(r.Ledger) < reportRows &&
			(row.Kernel|row.Synspy|row.Unattributed|row.Filtered != 0 || row.Gone) {
			r.Ledger = append(r.Ledger, row)
		}
	}
	r.listeners(d, listeners)
	r.tiles(d)
	r.drops(d)
	return r
}

func tone(f event.Finding) string {
	if f.ID == event.FindingHealthy {
		return "healthy"
	}
	switch f.Severity {
	case event.SeverityCause, event.SeverityContributing:
		return string(f.Severity)
	default:
		return "note"
	}
}

func newReportFinding(f event.Finding) reportFinding {
	r := reportFinding{Finding: f, Tone: tone(f), About: subject(f.Listener, f.Processes)}
	if info, ok := event.FindingOf(f.ID); ok {
		r.Means = info.Means
	}
	for _, e := range first(f.Evidence, reportRows) {
		r.Seen = append(r.Seen, seenRow{foreign(e.What), evidenceValue(e, Options{})})
	}
	r.Fix, r.Knobs = first(f.Fix, reportRows), first(f.Knobs, reportRows)
	return r
}

// tiles are the figures that a reader looks for first.
func (r *report) tiles(d *event.Diagnosis) {
	dropped, ignored := totalDrops(d.Counts)
	syns, _, known := totalSyns(d)
	if known {
		r.Tiles = append(r.Tiles, tile{Thousands(syns), "SYNs arrived", ""})
	}
	dropTone := "bad"
	if dropped == 0 {
		dropTone = "good"
	}
	r.Tiles = append(r.Tiles, tile{Thousands(dropped), "packets dropped or reset", dropTone})
	if ignored > 0 {
		r.Tiles = append(r.Tiles, tile{Thousands(ignored), "ignored on purpose", ""})
	}
	var gap uint64
	gapKnown := false
	for _, v := range d.Listeners {
		if v.LongestGapMs != nil {
			gap, gapKnown = max(gap, *v.LongestGapMs), true
		}
	}
	if gapKnown {
		r.Tiles = append(r.Tiles, tile{wait(float64(gap)), "longest time without an accept",
			""})
	}
	switch {
	case d.Balanced == nil:
		r.Tiles = append(r.Tiles,
			tile{"no ledger", "not compared with the kernel's counters", ""})
	case *d.Balanced:
		r.Tiles = append(r.Tiles, tile{"balanced", "ledger against the kernel's counters",
			"good"})
	default:
		r.Tiles = append(r.Tiles, tile{"OFF", "the ledger does not balance", "bad"})
	}
}

// drops is who lost what.
func (r *report) drops(d *event.Diagnosis) {
	most := uint64(0)
	for _, c := range d.Counts {
		most = max(most, c.Count)
	}
	for _, c := range first(d.Counts, reportRows) {
		b := bar{Label: strings.TrimSpace(c.Cause.String() + " (" + c.Stage.String() +
			", " + c.Action.String() + ")"),
			Value: Thousands(c.Count), Percent: percentOf(c.Count, most), Tone: "drop"}
		if c.Action == event.ActionIgnored {
			b.Tone = "quiet"
		}
		r.Causes = append(r.Causes, b)
	}
	most = 0
	for _, c := range d.Clients {
		most = max(most, c.Drops)
	}
	for _, c := range first(d.Clients, reportClients) {
		r.Clients = append(r.Clients, bar{Label: foreign(c.Addr), Value: Thousands(c.Drops),
			Percent: percentOf(c.Drops, most), Tone: "drop"})
	}
}

// percentOf shows that one of very many is not none.
func percentOf(n, most uint64) float64 {
	const visible = 0.5
	if most == 0 || n == 0 {
		return 0
	}
	return max(math.Round(1000*float64(n)/float64(most))/10, visible)
}

// listeners puts together what was seen of each, with the picture of its queues.
func (r *report) listeners(d *event.Diagnosis, keep int) {
	shown := make(map[int]bool) // timelines that belong to a listener
	for i := range first(d.Listeners, keep) {
		v := &d.Listeners[i]
		l := newReportListener(v)
		for j := range d.Timeline {
			if !shown[j] && sameListener(d.Timeline[j].Listener, &v.Listener) {
				shown[j] = true
				l.Chart = newChart(&d.Timeline[j], d.WindowS)
				break
			}
		}
		r.Listeners = append(r.Listeners, l)
	}
	for j := range first(d.Timeline, keep) {
		t := &d.Timeline[j]
		if len(r.Listeners) == keep || shown[j] || of(d.Listeners, t.Listener) {
			continue
		}
		l := reportListener{Name: endpoint(t.Listener), Chart: newChart(t, d.WindowS)}
		if t.Listener == nil {
			l.Name = "all listeners"
		}
		if l.Chart != nil {
			r.Listeners = append(r.Listeners, l)
		}
	}
}

// of reports whether a listener is one of those with a view.
func of(views []event.ListenerView, l *event.Listener) bool {
	for i := range views {
		if sameListener(l, &views[i].Listener) {
			return true
		}
	}
	return false
}

func sameListener(a, b *event.Listener) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.Cookie != 0 && b.Cookie != 0 {
		return a.Cookie == b.Cookie
	}
	return a.Addr == b.Addr && a.Port == b.Port && a.NetNS == b.NetNS && a.Inode == b.Inode
}

func newReportListener(v *event.ListenerView) reportListener {
	l := reportListener{Name: endpoint(&v.Listener), About: subject(nil, v.Processes),
		WhatIf: v.WhatIf}
	fact := func(value, label string) {
		l.Facts = append(l.Facts, tile{Value: value, Label: label})
	}
	if v.Syns != nil {
		fact(Thousands(*v.Syns), "SYNs")
	}
	if v.Accepts != nil {
		fact(Thousands(*v.Accepts), "accepted")
	}
	fact(Thousands(v.Drops), "dropped or reset")
	if v.LongestGapMs != nil {
		fact(wait(float64(*v.LongestGapMs)), "longest time without an accept")
	}
	if q := v.Listener.AcceptQueue; q != nil {
		fact(Thousands(uint64(q.Limit)), "accept queue's limit")
	}
	l.Waits = histogram(v.AcceptWaits)
	l.stacks(v.Stacks)
	if v.WhatIf != nil {
		most := v.WhatIf.Observed
		for _, row := range v.WhatIf.Rows {
			most = max(most, row.Dropped)
		}
		for _, row := range first(v.WhatIf.Rows, reportRows) {
			l.WhatIfRows = append(l.WhatIfRows,
				whatIfRow{WhatIfRow: row, Size: Thousands(uint64(row.Limit)),
					Standstill: standstill(row),
					Percent:    percentOf(row.Dropped, most), Better: row.Dropped == 0})
		}
	}
	return l
}

func (l *reportListener) stacks(stacks []event.ThreadStack) {
	all := uint64(0)
	for _, s := range stacks {
		all += weight(s)
	}
	for i, s := range first(stacks, reportStacks) {
		l.Stacks = append(l.Stacks, reportStack{Head: stackHead(s), Frames: frames(s),
			Share: percentOf(weight(s), all), Open: i < 2})
	}
}

func weight(s event.ThreadStack) uint64 {
	if s.Ms > 0 {
		return s.Ms
	}
	return s.Samples
}

// histogram leaves out the empty ends.
func histogram(buckets []event.Bucket) []bar {
	begin, end, most := len(buckets), 0, uint64(0)
	for i, b := range buckets {
		if b.Count > 0 {
			begin, end, most = min(begin, i), i+1, max(most, b.Count)
		}
	}
	if most == 0 {
		return nil
	}
	var bars []bar
	for i := begin; i < end && len(bars) < reportRows; i++ {
		b := buckets[i]
		var label string
		switch {
		case b.ToMs == nil && i == 0:
			label = "any"
		case b.ToMs == nil && buckets[i-1].ToMs != nil:
			label = "over " + wait(*buckets[i-1].ToMs)
		case b.ToMs == nil:
			label = "more"
		default:
			label = "up to " + wait(*b.ToMs)
		}
		bars = append(bars,
			bar{Label: label, Value: Thousands(b.Count),
				Percent: percentOf(b.Count, most), Tone: "time"})
	}
	return bars
}
