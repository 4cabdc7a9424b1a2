// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/synspy/synspy/internal/event"
)

// Diagnosis writes what a session found: the report that people read, or in JSON
// one record.
func Diagnosis(w io.Writer, d event.Diagnosis, opts Options) error {
	if opts.Format != FormatJSON {
		return writeDiagnosis(w, &d, opts)
	}
	head(&d.Header, "diagnosis")
	d.Findings, d.Ledger, d.Timeline = append([]event.Finding{}, d.Findings...), list(d.Ledger),
		list(d.Timeline)
	for i := range d.Findings {
		f := &d.Findings[i]
		f.Evidence, f.Fix = list(f.Evidence), list(f.Fix)
	}
	return WriteJSON(w, d)
}

// What a report shows at most of lists that outsiders can make long.
const (
	reportListeners = 8
	reportClients   = 10
	reportStacks    = 8
	reportFrames    = 24
	reportFindings  = 40
	reportRows      = 40  // of any other list
	reportText      = 240 // characters of a string
	reportSentence  = 600 // of a sentence that synspy makes: a command to be pasted may end it
	reportSize      = 1 << 20
)

// foreign makes a string from outside safe to print and bounds its length.
func foreign(s string) string { return boundTo(s, reportText) }

// sentence is foreign for the sentences that synspy makes, in which strings from outside stand.
func sentence(s string) string { return boundTo(s, reportSentence) }

func boundTo(s string, most int) string {
	ends := 2 * most
	if len(s) > 2*ends { // quickly, however long it is
		s = s[:ends] + s[len(s)-ends:]
	}
	if len(s) > most {
		b, _ := elide([]byte(strings.ToValidUTF8(s, "�")), 0, most, true)
		s = string(b)
	}
	return Terminal(s)
}

// first returns at most n of them.
func first[T any](l []T, n int) []T { return l[:min(n, len(l))] }

func endpoint(l *event.Listener) string {
	if l == nil {
		return ""
	}
	if !l.Addr.IsValid() {
		return "port " + strconv.Itoa(int(l.Port))
	}
	return string(appendEndpoint(nil, l.Addr, l.Port))
}

// subject names a listener, and whose it is: one line.
func subject(l *event.Listener, processes []event.Process) string {
	var parts []string
	if l != nil {
		parts = append(parts, endpoint(l))
	}
	names := make([]string, 0, 3)
	for _, p := range first(processes, cap(names)) {
		name := "pid " + strconv.FormatUint(uint64(p.PID), 10)
		if p.Comm != "" {
			name = foreign(p.Comm) + " (" + name + ")"
		}
		names = append(names, name)
	}
	if more := len(processes) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	if len(names) > 0 {
		parts = append(parts, strings.Join(names, ", "))
	}
	if len(processes) > 0 {
		p := processes[0]
		place := string(placeCell(nil, Options{},
			&event.Drop{Pod: p.Pod, Container: p.Container, Cgroup: p.Cgroup}))
		switch {
		case place == unknown:
		case p.Pod != nil && p.Pod.Name != "":
			parts = append(parts, "pod "+foreign(place))
		case p.Container != nil:
			parts = append(parts, "container "+foreign(place))
		default:
			parts = append(parts, "cgroup "+foreign(place))
		}
	}
	return strings.Join(parts, ", ")
}

// evidenceValue writes what was seen. Numbers may be of any Go type, and after
// JSON are float64.
func evidenceValue(e event.Evidence, opts Options) string {
	var text string
	switch v := e.Value.(type) {
	case nil:
		return unknown
	case bool:
		text = "no"
		if v {
			text = "yes"
		}
	case string:
		text = foreign(v)
	case float64:
		text = number(v, opts)
	case float32:
		text = number(float64(v), opts)
	default:
		text = foreign(fmt.Sprint(v))
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			text = opts.count(n)
		}
	}
	unit := foreign(e.Unit)
	switch {
	case unit == "":
		return text
	case unit == "ms":
		if ms, ok := float(e.Value); ok && ms >= 1000 {
			return wait(ms)
		}
	case len(unit) > len("ms") && strings.Contains(e.What, e.Unit): // "SYNs in the window: 800"
		return text
	case text == "1" && len(unit) > len("ms"):
		unit = strings.TrimSuffix(unit, "s")
		if unit == "addresse" {
			unit = "address"
		}
	}
	return text + " " + unit
}

// float is the value of any number.
func float(v any) (float64, bool) {
	f, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	return f, err == nil
}

// number writes 4310 as 4,310 and 12.3456 as 12.35.
func number(v float64, opts Options) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return unknown
	case v < 0:
		return "-" + number(-v, opts)
	case v == math.Trunc(v) && v < 1<<53:
		return opts.count(uint64(v))
	case v >= 1000:
		return opts.count(uint64(v + 0.5))
	case v >= 1:
		return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}

// wait writes milliseconds as people say them.
func wait(ms float64) string {
	if ms < 1000 {
		return number(math.Round(ms*10)/10, Options{}) + " ms"
	}
	return seconds(time.Duration(ms * float64(time.Millisecond)))
}

// totalDrops is what was dropped or reset, and what was ignored on purpose.
func totalDrops(counts []event.Count) (dropped, ignored uint64) {
	for _, c := range counts {
		if c.Action == event.ActionIgnored {
			ignored += c.Count
		} else {
			dropped += c.Count
		}
	}
	return dropped, ignored
}

// totalSyns sums over the listeners; false where one was not counted.
func totalSyns(d *event.Diagnosis) (n, listeners uint64, known bool) {
	for _, v := range d.Listeners {
		switch {
		case v.Syns != nil:
			n += *v.Syns
		case d.GroupSyns == nil:
			return 0, 0, false
		}
	}
	if d.GroupSyns != nil {
		n += *d.GroupSyns
	}
	listeners = uint64(len(d.Listeners))
	if rest := d.Unlisted; rest != nil {
		if rest.Syns == nil {
			return 0, 0, false
		}
		n, listeners = n+*rest.Syns, listeners+rest.Listeners
	}
	return n, listeners, listeners > 0
}

// paragraph wraps a sentence below where it began. Its label is painted, and has
// no other escapes; the sentence is safe already.
func (p *printer) paragraph(label, style string, indent int, sentence string) {
	width, at := max(p.opts.Width, 40), utf8.RuneCountInString(label)
	out, empty := p.opts.paint(style, label), true
	for _, word := range strings.Fields(sentence) {
		n := utf8.RuneCountInString(word)
		if !empty && at+1+n > width {
			p.line(out)
			out, at, empty = strings.Repeat(" ", indent), indent, true
		}
		if !empty {
			out, at = out+" ", at+1
		}
		out, at, empty = out+word, at+n, false
	}
	p.line(strings.TrimRight(out, " "))
}
