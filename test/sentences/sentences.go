// SPDX-License-Identifier: Apache-2.0

// Package sentences reads reports as people do, and compares what they say with the numbers that
// stand beside it.
package sentences

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/render"
)

var (
	oneOfMany = regexp.MustCompile(`(?:^|[^\d,.:-])1 (?:more )?(?:SYNs|SYN-ACKs|ACKs|packets|handshakes|listeners|clients|connections|causes|namespaces|counters|addresses|drops|ports)\b`)
	manyOfOne = regexp.MustCompile(`(?:^|[^\d,.:-])(?:0|[2-9]|\d[\d,]*\d) (?:more )?(?:SYN|packet|handshake|listener|client|connection|counter)(?:[.;,)]|$| (?:arrived|reached|died|was|were|on|of)\b)`)
	died      = regexp.MustCompile(`^(?:Of )?([\d,]+) handshake packets? `)
	ofThose   = regexp.MustCompile(`that died, ([\d,]+) `)
	more      = regexp.MustCompile(`there are ([\d,]+) more causes`)
	watched   = regexp.MustCompile(`([\d,]+) packets? dropped or reset`)
	others    = regexp.MustCompile(`(?m)^([\d,]+) more clients?$`)
	unmoved   = regexp.MustCompile(`none of its ([\d,]+) counters? moved`)
	roomy     = regexp.MustCompile(`a limit of (\d+) .*would have dropped 0 of ([\d,]+) handshakes?`)
	replayed  = regexp.MustCompile(`the replay of what was drops ([\d,]+)`)
)

func numberIn(r *regexp.Regexp, text string, group int) (uint64, bool) {
	m := r.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.ReplaceAll(m[group], ",", ""), 10, 64)
	return n, err == nil
}

// Report is the diagnosis as people read it; an error is part of it.
func Report(d event.Diagnosis) string {
	var text bytes.Buffer
	if err := render.Diagnosis(&text, d, render.Options{Width: 100}); err != nil {
		return err.Error()
	}
	return text.String()
}

// Contradictions lists the sentences of a report that its numbers do not bear.
func Contradictions(d event.Diagnosis) (wrong []string) {
	report := Report(d)
	flat := strings.Join(strings.Fields(report), " ")
	say := func(format string, a ...any) { wrong = append(wrong, fmt.Sprintf(format, a...)) }
	var dropped, ignored uint64
	for _, c := range d.Counts {
		if c.Action == event.ActionIgnored {
			ignored += c.Count
		} else {
			dropped += c.Count
		}
	}
	causes := uint64(0)
	for _, f := range d.Findings {
		if f.Severity == event.SeverityCause {
			causes++
		}
	}
	for _, r := range []*regexp.Regexp{oneOfMany, manyOfOne} {
		if m := r.FindString(flat); m != "" {
			say("number and noun: %q", m)
		}
	}
	if n, ok := numberIn(watched, flat, 1); ok && n != dropped {
		say("%d packets are said to be dropped or reset, and the counts have %d", n,
			dropped)
	}
	n, ok := numberIn(died, d.Verdict, 1)
	if ok && n > dropped {
		say("the verdict has %d dead, and the counts %d", n, dropped)
	}
	if of, some := numberIn(ofThose, d.Verdict, 1); some && (of >= n || !ok) {
		say("the verdict has %d of %d", of, n)
	}
	if (strings.Contains(d.Verdict, "none was dropped") ||
		strings.Contains(d.Verdict, "othing was seen to be dropped")) && dropped > 0 {
		say("nothing dropped, and %d were", dropped)
	}
	if strings.Contains(d.Verdict, "not the problem") {
		if h := d.Handshakes; causes > 0 || h == nil || h.Unaccounted > 0 ||
			h.Finished == 0 {
			say("not the problem, with %d causes and the handshakes %+v", causes, h)
		}
	}
	if k, ok := numberIn(more, d.Verdict, 1); ok && k != causes-1 ||
		strings.Contains(d.Verdict, "there is another cause") && causes != 2 {
		say("the verdict has other causes, and the report %d", causes)
	}
	for _, f := range d.Findings {
		for _, k := range f.Knobs { // of queues: what is to be raised is to be more than it is
			now, err1 := strconv.ParseUint(k.Now, 10, 64)
			try, err2 := strconv.ParseUint(k.Try, 10, 64)
			if err1 == nil && err2 == nil && try <= now &&
				(strings.Contains(k.Name, "backlog") ||
					strings.Contains(k.Name, "somaxconn")) {
				say("%s: %s is to go from %d to %d", f.ID, k.Name, now, try)
			}
		}
	}
	if h := d.Handshakes; h != nil {
		if sum := h.Finished + h.Ended + h.Died + h.Cookies + h.Held + h.Unanswered + h.Open + h.Unaccounted; sum != h.Begun {
			say("%d handshakes began, and %d became something: %+v", h.Begun, sum, h)
		}
	}
	wrong = append(wrong, ledgerContradictions(d, flat)...)
	if k, ok := numberIn(others, report, 1); ok && d.ClientsSeen != nil &&
		k+10 != *d.ClientsSeen {
		say("%d more clients than 10, of %d", k, *d.ClientsSeen)
	}
	for i := range d.Listeners {
		if w := d.Listeners[i].WhatIf; w != nil {
			wrong = append(wrong, replayContradictions(w, d.Findings)...)
		}
	}
	return wrong
}

func ledgerContradictions(d event.Diagnosis, flat string) (wrong []string) {
	var moved, unattributed, rows uint64
	for _, r := range d.Ledger {
		if !r.Shared {
			rows++
			unattributed += r.Unattributed
			if !r.Gone {
				moved += r.Kernel
			}
		}
	}
	if n, ok := numberIn(unmoved, flat, 1); ok && (moved > 0 || n > rows) {
		wrong = append(wrong,
			fmt.Sprintf("none of %d counters moved, and %d rows moved by %d", n, rows,
				moved))
	}
	if strings.Contains(flat, "moved by what synspy counted") && unattributed > 0 {
		wrong = append(wrong, fmt.Sprintf("%d unattributed under a balanced ledger",
			unattributed))
	}
	if strings.Contains(flat, "ledger balanced") && d.Balanced != nil && !*d.Balanced {
		wrong = append(wrong, "a ledger that does not balance is called balanced")
	}
	return wrong
}

func replayContradictions(w *event.WhatIf, findings []event.Finding) (wrong []string) {
	present := w.Rows[0]
	enough := func(r event.WhatIfRow) bool {
		return r.Limit > present.Limit && r.Workers == 1 && r.Dropped == 0
	}
	if strings.Contains(w.Says, "no limit helps") ||
		strings.Contains(w.Says, "no limit up to") {
		if slices.ContainsFunc(w.Rows, enough) {
			wrong = append(wrong, fmt.Sprintf("%q, over %+v", w.Says, w.Rows))
		}
	}
	if m := roomy.FindStringSubmatch(w.Says); m != nil {
		n, _ := numberIn(roomy, w.Says, 2)
		if n != w.Arrivals || !slices.ContainsFunc(w.Rows, func(r event.WhatIfRow) bool {
			return enough(r) && fmt.Sprint(r.Limit) == m[1]
		}) {
			wrong = append(wrong, fmt.Sprintf("%q, over %+v", w.Says, w.Rows))
		}
	}
	for _, f := range findings {
		for _, fix := range f.Fix {
			if n, ok := numberIn(replayed, fix, 1); ok && n != present.Dropped {
				wrong = append(wrong, fmt.Sprintf("%q, over %+v", fix, present))
			}
		}
	}
	return wrong
}
