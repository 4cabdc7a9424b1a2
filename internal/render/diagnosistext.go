// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// A report is read in a terminal of an incident: neither wider than an eye
// follows, nor narrower than its tables.
const (
	reportWidest    = 100
	reportNarrowest = 60
	styleBold       = "\x1b[1m"
)

// writeDiagnosis is the report: the verdict, then the findings, each with what it
// rests on and what to do, then what other settings would have done, then the
// figures.
func writeDiagnosis(w io.Writer, d *event.Diagnosis, opts Options) error {
	if opts.Width <= 0 {
		opts.Width = reportWidest
	}
	opts.Width = min(max(opts.Width, reportNarrowest), reportWidest)
	var out bytes.Buffer
	p := &printer{w: &out, opts: opts}
	p.verdict(d)
	p.paragraph("", styleNone, 0, watchedSentence(d, opts))
	for _, line := range provenance(d, opts.Time) {
		p.paragraph("", styleNone, 2, line)
	}
	for i := range first(d.Findings, reportFindings) {
		p.line("")
		p.finding(&d.Findings[i])
	}
	p.more(len(d.Findings)-reportFindings, "finding")
	for i := range d.Listeners {
		p.whatIf(&d.Listeners[i])
	}
	listed := first(d.Listeners, reportListeners)
	for i := range listed {
		same := func(v event.ListenerView) bool { // another socket of the same process, of its SO_REUSEPORT group
			return endpoint(&v.Listener) == endpoint(&listed[i].Listener) &&
				reflect.DeepEqual(v.Stacks, listed[i].Stacks)
		}
		if !slices.ContainsFunc(listed[:i], same) {
			p.stacks(&listed[i])
		}
	}
	if len(d.Counts) > 0 {
		p.counts(d.Counts)
	}
	p.clients(d.Clients, d.ClientsSeen)
	for _, c := range first(d.Cannot, reportRows) {
		p.line("")
		ids := make([]string, len(c.Findings))
		for i, id := range c.Findings {
			ids[i] = foreign(string(id))
			if info, ok := event.FindingOf(id); ok {
				ids[i] = info.Title
			}
		}
		of := strings.Join(ids, "; ")
		if of != "" {
			of += ": "
		}
		p.paragraph("not told: ", styleDim, 10, of+foreign(c.Why))
	}
	switch {
	case d.Balanced == nil:
		p.line("")
		p.line("no ledger was kept: these counts were not compared with the kernel's counters")
	case len(d.Ledger) == 0 && *d.Balanced: // a recording's summary alone
		p.line("")
		p.line("ledger balanced")
	default:
		p.ledger(event.Summary{Ledger: d.Ledger, Counts: d.Counts, Balanced: *d.Balanced,
			Overflow: d.Overflow})
	}
	if bytes.Count(out.Bytes(), []byte("\n")) > cmp.Or(opts.Height, usualHeight) {
		p.line("")
		p.verdict(d)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// usualHeight is that of a terminal of which it is not known.
const usualHeight = 24

// verdict is the first line, and the last one where the first is out of sight by then.
func (p *printer) verdict(d *event.Diagnosis) {
	style := styleGreen
	if len(d.Findings) > 0 {
		style = severityStyle(d.Findings[0])
	}
	p.paragraph("VERDICT: ", style, 9, sentence(d.Verdict))
}

func severityStyle(f event.Finding) string {
	switch f.Severity {
	case event.SeverityCause:
		return styleLoud
	case event.SeverityContributing:
		return styleYellow
	case event.SeverityNote:
		if f.ID == event.FindingHealthy {
			return styleGreen
		}
	}
	return styleCyan
}

// watchedSentence says what the verdict rests on: silence must be evidence.
func watchedSentence(d *event.Diagnosis, opts Options) string {
	during := seconds(time.Duration(d.WindowS * float64(time.Second)))
	dropped, ignored := totalDrops(d.Counts)
	parts := []string{"watched " + during}
	if syns, listeners, known := totalSyns(d); known {
		parts = append(parts, opts.plural(syns, "SYN")+" on "+opts.plural(listeners,
			"listener"))
	}
	parts = append(parts, opts.plural(dropped, "packet")+" dropped or reset")
	if ignored > 0 {
		parts = append(parts, opts.count(ignored)+" ignored on purpose")
	}
	return strings.Join(parts, ", ")
}

func (p *printer) more(n int, noun string) {
	if n > 0 {
		p.line("")
		p.line(p.opts.plural(uint64(n), "more "+noun) + ": see -o json")
	}
}

func (p *printer) finding(f *event.Finding) {
	p.paragraph(strings.ToUpper(foreign(string(f.Severity)))+": ", severityStyle(*f), 2,
		foreign(f.Title))
	facts := []string{foreign(string(f.ID))}
	if f.Confidence != "" {
		facts = append(facts, foreign(string(f.Confidence)))
	}
	if f.Owner != "" {
		facts = append(facts, "for: "+foreign(f.Owner))
	}
	p.line("  " + p.opts.paint(styleDim, strings.Join(facts, ", ")))
	if about := subject(f.Listener, f.Processes); about != "" {
		p.paragraph("  ", styleNone, 4, about)
	}
	if len(f.Evidence) > 0 {
		p.section("evidence")
		p.evidence(first(f.Evidence, reportRows))
	}
	if len(f.Fix) > 0 {
		p.section("fix")
		for i, fix := range first(f.Fix, reportRows) {
			label := "    " + strconv.Itoa(i+1) + ". "
			p.paragraph(label, styleNone, len(label), sentence(fix))
		}
	}
	for _, k := range first(f.Knobs, reportRows) {
		// Most are a fix of the list already, in words.
		if !slices.ContainsFunc(f.Fix, func(fix string) bool {
			return strings.Contains(fix, k.Name) && strings.Contains(fix, k.Try)
		}) {
			p.knob(k)
		}
	}
	if f.Settles != "" {
		p.section("what would settle it")
		p.paragraph("    ", styleNone, 4, sentence(f.Settles))
	}
}

func (p *printer) section(title string) { p.line("  " + p.opts.paint(styleBold, title)) }

func (p *printer) evidence(list []event.Evidence) {
	for _, e := range list {
		p.paragraph("    - ", styleNone, 6, foreign(e.What)+": "+evidenceValue(e, p.opts))
	}
}

func (p *printer) knob(k event.Knob) {
	text := foreign(k.Name)
	switch {
	case k.Now != "" && k.Try != "":
		text += ": " + foreign(k.Now) + " -> " + foreign(k.Try)
	case k.Try != "":
		text += ": try " + foreign(k.Try)
	case k.Now != "":
		text += ": now " + foreign(k.Now)
	}
	p.paragraph("    * ", styleCyan, 6, text)
	if k.Where != "" {
		p.paragraph("      set in: ", styleDim, 14, foreign(k.Where))
	}
	if k.Why != "" {
		p.paragraph("      why:    ", styleDim, 14, foreign(k.Why))
	}
}

// whatIf is the window replayed with other settings.
func (p *printer) whatIf(v *event.ListenerView) {
	w := v.WhatIf
	if w == nil {
		return
	}
	p.line("")
	p.line(p.opts.paint(styleBold, "WHAT IF, on "+endpoint(&v.Listener)))
	p.paragraph("  ", styleNone, 2, foreign(w.Says))
	rows := make([][]string, 0, len(w.Rows))
	for _, r := range first(w.Rows, reportRows) {
		mark := ""
		if r.Present {
			mark = "now"
		}
		rows = append(rows, []string{"  " + p.opts.count(uint64(r.Limit)),
			number(r.Workers, p.opts) + " x", standstill(r),
			p.opts.count(r.Dropped), p.opts.count(r.Lost), wait(r.WaitMs), mark})
	}
	p.table([]Column{{Title: "  LIMIT"}, {Title: "WORKERS", Right: true},
		{Title: "STANDSTILL", Right: true},
		{Title: "DROPPED", Right: true}, {Title: "LOST", Right: true},
		{Title: "LONGEST WAIT", Right: true},
		{Style: func(string) string { return styleCyan }}}, rows)
	p.paragraph("  ", styleNone, 2,
		fmt.Sprintf("replayed: %s; seen: %s. STANDSTILL is the longest time without an accept. DROPPED counts packets, LOST clients that never got through.",
			p.opts.plural(w.Arrivals, "handshake"), p.opts.plural(w.Observed, "drop")))
	if len(w.Assumes) > 0 {
		assumes := make([]string, 0, len(w.Assumes))
		for _, a := range first(w.Assumes, reportRows) {
			assumes = append(assumes, foreign(a))
		}
		p.paragraph("  assumes: ", styleDim, 4, strings.Join(assumes, "; "))
	}
}

func standstill(r event.WhatIfRow) string {
	if r.AcceptMs == 0 {
		return unknown
	}
	return wait(r.AcceptMs)
}

// Stacks of a text report: the first are what the findings rest on.
const (
	textStacks = 2
	textFrames = 8
)

func (p *printer) stacks(v *event.ListenerView) {
	if len(v.Stacks) == 0 {
		return
	}
	p.line("")
	p.line(p.opts.paint(styleBold, "THREADS of "+endpoint(&v.Listener)))
	for _, s := range first(v.Stacks, textStacks) {
		p.paragraph("  ", styleNone, 4, stackHead(s))
		for _, frame := range first(frames(s), textFrames) {
			p.line("    " + frame)
		}
	}
	if more := len(v.Stacks) - textStacks; more > 0 {
		p.line("  " + p.opts.plural(uint64(more), "more stack") +
			": see --report FILE or -o json")
	}
}

// stackHead says whose a stack is, and what the thread did.
func stackHead(s event.ThreadStack) string {
	name := "pid " + strconv.FormatUint(uint64(s.PID), 10)
	if s.TID != 0 && s.TID != s.PID {
		name += ", thread " + strconv.FormatUint(uint64(s.TID), 10)
	}
	if s.Comm != "" {
		name = foreign(s.Comm) + " (" + name + ")"
	}
	parts := []string{name + ": " + stackDoing(s)}
	if s.Ms > 0 {
		parts = append(parts, wait(float64(s.Ms)))
	}
	if s.Samples > 0 {
		parts = append(parts, "seen "+plural(s.Samples, "time"))
	}
	return strings.Join(parts, ", ")
}

func stackDoing(s event.ThreadStack) string {
	doing := ""
	switch {
	case s.Frozen:
		doing = "frozen"
	case s.OnCPU:
		doing = "on a CPU"
	case s.State == "T":
		doing = "stopped"
	case s.State == "t":
		doing = "held by a tracer"
	case s.State == "D":
		doing = "uninterruptibly asleep"
	case s.State == "S":
		doing = "asleep"
	case s.State == "R":
		doing = "waiting for a CPU"
	case s.State != "":
		doing = "in state " + foreign(s.State)
	}
	switch {
	case s.Syscall != "" && doing != "":
		return doing + " in " + foreign(s.Syscall)
	case s.Syscall != "":
		return "in " + foreign(s.Syscall)
	case doing == "":
		return "state unknown"
	default:
		return doing
	}
}

// frames are those of the process, or the kernel's where they are unknown.
func frames(s event.ThreadStack) []string {
	from := s.User
	if len(from) == 0 {
		from = s.Kernel
	}
	out := make([]string, 0, len(from))
	for _, f := range first(from, reportFrames) {
		out = append(out, foreign(f))
	}
	return out
}

// clients lists those that lost most. seen is how many there were in all, nil where that is not
// known.
func (p *printer) clients(clients []event.ClientCount, seen *uint64) {
	if len(clients) == 0 {
		return
	}
	var rows [][]string
	for _, c := range first(clients, reportClients) {
		rows = append(rows, []string{foreign(c.Addr), p.opts.count(c.Drops)})
	}
	p.line("")
	p.table([]Column{{Title: "CLIENT"}, {Title: "DROPS", Right: true}}, rows)
	switch more := moreClients(clients, seen); {
	case seen == nil && more > 0:
		p.line("at least " + p.opts.plural(more, "more client"))
	case more > 0:
		p.line(p.opts.plural(more, "more client"))
	}
}

// moreClients is how many are not shown, of those that are known.
func moreClients(clients []event.ClientCount, seen *uint64) uint64 {
	all := uint64(len(clients))
	if seen != nil {
		all = max(all, *seen)
	}
	return all - uint64(min(len(clients), reportClients))
}
