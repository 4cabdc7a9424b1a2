// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// QuietLine says what was seen while nothing was dropped, for standard error: silence alone is no
// evidence. Filters are those of the trace: what some of them leave out may have died all the same.
func QuietLine(seen []event.Seen, during time.Duration, filters ...event.Filter) string {
	return Terminal(seenLine(0, seen, Options{Narrowed: narrowing(filters)})) +
		" in the last " + seconds(during)
}

// narrowing is the filters that keep drops out and count SYNs all the same, as text.
func narrowing(filters []event.Filter) string {
	return event.FilterText(slices.DeleteFunc(slices.Clone(filters), func(f event.Filter) bool {
		return !slices.Contains([]string{"addr", "client", "cause", "stage"}, f.Name)
	}))
}

func seenLine(dropped uint64, seen []event.Seen, opts Options) string {
	syn, _ := totals(seen)
	if syn == 0 && dropped == 0 {
		return "0 SYNs reached a listener"
	}
	if opts.Narrowed != "" {
		return fmt.Sprintf("%s dropped, of those that pass %s; %s came to %s",
			opts.plural(dropped, "SYN"), opts.Narrowed, opts.plural(syn,
				"SYN"), opts.plural(listeners(seen), "listener"))
	}
	return fmt.Sprintf("%s of %s dropped on %s",
		opts.count(dropped), opts.plural(syn, "SYN"), opts.plural(listeners(seen),
			"listener"))
}

// listeners counts those that packets reached.
func listeners(seen []event.Seen) (n uint64) {
	for i := range seen {
		n += max(seen[i].Closed, 1)
	}
	return n
}

func totals(seen []event.Seen) (syn, ack uint64) {
	for i := range seen {
		syn += seen[i].Syn
		ack += seen[i].Ack
	}
	return syn, ack
}

// writeSummary is the end of a table stream.
func writeSummary(w io.Writer, sum event.Summary, opts Options) error {
	p := &printer{w: w, opts: opts}
	p.headline(sum)
	p.counts(sum.Counts)
	p.causes(sum.Counts)
	p.line("")
	p.line(recordsLine(sum, p.opts))
	p.recount(sum.Recount)
	p.ledger(sum)
	return p.err
}

// printer keeps the first error, so that the order of the parts reads plainly.
type printer struct {
	w    io.Writer
	opts Options
	err  error
}

func (p *printer) line(s string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, s+"\n")
	}
}

// text wraps a sentence at the width of the terminal, below where it began.
func (p *printer) text(label, sentence string) {
	width := p.opts.Width
	if width <= 0 {
		width = defaultWidth
	}
	indent := min(len(label), 10)
	line := label
	for i, word := range strings.Fields(sentence) {
		if i > 0 && len(line)+1+len(word) > max(width, narrowBelow/2) {
			p.line(line)
			line = strings.Repeat(" ", indent) + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	p.line(line)
}

func (p *printer) table(columns []Column, rows [][]string) {
	if p.err == nil {
		p.err = Table(p.w, columns, rows, p.opts)
	}
}

func (p *printer) headline(sum event.Summary) {
	var at [event.NumStages]uint64
	ignored := uint64(0)
	for _, c := range sum.Counts {
		if c.Action == event.ActionIgnored {
			ignored += c.Count
		} else {
			at[c.Stage%event.NumStages] += c.Count
		}
	}
	_, seenAcks := totals(sum.Seen)
	acks := p.opts.count(at[event.StageAck]) + " of " + p.opts.plural(seenAcks, "handshake ACK")
	if p.opts.Narrowed != "" {
		acks = p.opts.plural(at[event.StageAck], "handshake ACK")
	}
	p.line(Terminal(seenLine(at[event.StageSyn], sum.Seen, p.opts)))
	for _, more := range []struct {
		n    uint64
		text string
	}{
		{at[event.StageAck], acks + " dropped or reset"},
		{at[event.StageIngress], p.opts.plural(at[event.StageIngress], "packet") +
			" died before any listener"},
		{at[event.StageTimer], p.opts.plural(at[event.StageTimer], "handshake") +
			" died waiting for the client's answer"},
		{at[event.StageClose], p.opts.plural(at[event.StageClose], "finished handshake") +
			" died with a closing listener"},
		{ignored, p.opts.plural(ignored, "packet") +
			" ignored on purpose (not listed above)"},
		{sum.Cookies, p.opts.plural(sum.Cookies, "SYN") + " answered by a SYN cookie"},
	} {
		if more.n > 0 {
			p.line(more.text)
		}
	}
}

func (p *printer) counts(counts []event.Count) {
	if len(counts) == 0 {
		return
	}
	counts = slices.Clone(counts)
	slices.SortStableFunc(counts, func(a, b event.Count) int {
		switch {
		case a.Count != b.Count && a.Count > b.Count:
			return -1
		case a.Count != b.Count:
			return 1
		default:
			return int(a.Cause) - int(b.Cause)
		}
	})
	var rows [][]string
	for _, c := range counts {
		rows = append(rows, []string{c.Cause.String(), c.Stage.String(), c.Action.String(),
			p.opts.count(c.Count)})
	}
	p.line("")
	p.table([]Column{
		{Title: "CAUSE"}, {Title: "STAGE"}, {Title: "ACTION", Style: actionStyle},
		{Title: "COUNT", Right: true},
	}, rows)
}

func actionStyle(action string) string {
	switch action {
	case event.ActionReset.String():
		return styleYellow
	case event.ActionDropped.String():
		return styleRed
	default:
		return styleNone
	}
}

// causes explains those that occurred, once each, in the table's order.
func (p *printer) causes(counts []event.Count) {
	for _, info := range event.Causes() {
		if !slices.ContainsFunc(counts, func(c event.Count) bool {
			return c.Cause == info.Cause && c.Count > 0
		}) {
			continue
		}
		p.line("")
		p.text(info.Name+": ", info.Explain)
		p.text("  client: ", info.Client)
		p.text("  fix:    ", info.Fix)
	}
}

func recordsLine(sum event.Summary, opts Options) string {
	parts := []string{
		"records: " + opts.count(sum.Delivered) + " delivered",
		opts.count(sum.Suppressed) + " held back",
		opts.count(sum.Lost) + " lost",
	}
	if sum.Unattributed > 0 {
		parts = append(parts, opts.count(sum.Unattributed)+" unattributed")
	}
	least := ""
	if sum.Recount != nil && sum.Recount.HandshakesAtLeast {
		least = "at least "
	}
	return strings.Join(parts, ", ") + "; " + least + opts.plural(sum.Handshakes, "handshake") +
		" in " + seconds(time.Duration(sum.DurationMs)*time.Millisecond)
}

// recount says of which records the summary is, and what they do not tell.
func (p *printer) recount(r *event.Recount) {
	if r == nil {
		return
	}
	p.text("counted again: ",
		"these are the records that pass "+Terminal(event.FilterText(r.Filters)))
	for _, of := range []struct {
		n          uint64
		noun, rest string
	}{
		{r.Unsure, "more packet", "held back or lost"},
		{r.UnsureSyns, "more SYN",
			"to listeners that no record names with what the filter asks for"},
		{r.UnsureCookies, "more SYN", "answered by a SYN cookie"},
	} {
		if of.n > 0 {
			p.text("not known: ", "whether the filter asks for "+p.opts.plural(of.n,
				of.noun)+" "+of.rest)
		}
	}
}

// ledger shows the rows that moved, and says loudly when they do not balance.
func (p *printer) ledger(sum event.Summary) {
	var rows [][]string
	var wrong []string
	gone := make(map[uint64]bool)
	ledger, left := fewerShared(sum)
	shared, own, compared := 0, 0, 0 // rows: shared and moved, of the closed list, and of those the ones with a closing value
	var moved, unattributed uint64   // of the closed list
	for _, r := range ledger {
		kernel := p.opts.count(r.Kernel)
		if r.Gone {
			gone[r.NetNS], kernel = true, "-"
		}
		if !r.Shared {
			own++
			unattributed += r.Unattributed
			if !r.Gone {
				compared++
				moved += r.Kernel
			}
		}
		if !r.Balanced() {
			wrong = append(wrong, imbalance(r, p.opts))
		}
		if r.Kernel|r.Synspy|r.Unattributed|r.Filtered == 0 && !r.Gone {
			continue
		}
		if r.Shared {
			shared++
		}
		rows = append(rows, []string{
			ledgerNetNS(r), r.Counter,
			kernel, p.opts.count(r.Synspy), p.opts.count(r.Unattributed),
			p.opts.count(r.Filtered), verdict(r),
		})
	}
	p.line("")
	if len(rows) > 0 {
		p.table([]Column{
			{Title: "NETNS"}, {Title: "LEDGER"}, {Title: "KERNEL", Right: true},
			{Title: "SYNSPY", Right: true},
			{Title: "UNATTRIBUTED", Right: true}, {Title: "FILTERED", Right: true},
			{Title: "", Style: verdictStyle},
		}, rows)
	}
	switch {
	case len(wrong) > 0:
		if more := len(wrong) - maxNamed; more > 0 {
			wrong = append(wrong[:maxNamed], fmt.Sprintf("and %d more", more))
		}
		p.line(p.opts.paint(styleLoud, "LEDGER DOES NOT BALANCE: "+strings.Join(wrong,
			"; ")))
	case !sum.Balanced && sum.Overflow != nil && sum.Overflow.Namespaces > 0:
		p.line(p.opts.paint(styleLoud,
			"LEDGER IS NOT WHOLE: "+Thousands(sum.Overflow.Namespaces)+
				" packets or counter movements were of network namespaces that it had no room for"))
	case !sum.Balanced:
		p.line(p.opts.paint(styleLoud, "LEDGER DOES NOT BALANCE"))
	case own == 0:
		p.line("ledger balanced, with nothing to compare: nothing listened or died in the network namespaces under watch")
	case compared == 0:
		p.line("ledger not checked: the network namespaces took their counters along")
	case unattributed > 0:
		p.text("ledger balanced, ",
			fmt.Sprintf("but no packet was seen for %s of the %s of the kernel's counters (%s %%): UNATTRIBUTED",
				p.opts.count(unattributed), p.opts.plural(max(moved, unattributed),
					"movement"), share(unattributed, max(moved, unattributed))))
	case moved == 0:
		says := fmt.Sprintf("ledger balanced: none of its %s moved",
			p.opts.plural(uint64(compared), "counter"))
		if compared == 1 {
			says = "ledger balanced: its 1 counter did not move"
		}
		if shared > 0 {
			says += ", those marked shared left out"
		}
		p.line(says)
	default:
		p.line("ledger balanced: the kernel's counters moved by what synspy counted")
	}
	if n := event.Unchecked(sum.Counts); n > 0 {
		p.text("not compared: ",
			p.opts.plural(n,
				"packet")+" died where no counter of this ledger moves: others that had no drop event may be missing")
	}
	if shared > 0 {
		p.text("shared: ",
			"other traffic moves these counters too; SYNSPY is what the counted packets are sure to have moved")
	}
	if left > 0 {
		p.line(p.opts.plural(left, "more shared counter") +
			" moved by other traffic: see -o json")
	}
	if len(gone) > 0 {
		p.line(p.opts.plural(uint64(len(gone)), "namespace") +
			" vanished with their counters: what was counted there could not be checked")
	}
}

// share is a part in per cent: never 0 of what is there.
func share(part, whole uint64) string {
	percent := 100 * float64(part) / float64(whole)
	if percent < 0.1 {
		return "under 0.1"
	}
	return strconv.FormatFloat(percent, 'f', 1, 64)
}

// ledgerNetNS names a row's namespace.
func ledgerNetNS(r event.LedgerRow) string {
	if r.Others {
		return "others"
	}
	if r.Name != "" {
		return Terminal(r.Name)
	}
	return strconv.FormatUint(r.NetNS, 10)
}

// maxNamed is how many rows that do not balance are named after the table.
const maxNamed = 8

const (
	verdictOff    = "DOES NOT BALANCE"
	verdictShared = "shared" // explained below the table: the line is long enough
	verdictGone   = "namespace gone, not checked"
)

func verdict(r event.LedgerRow) string {
	switch {
	case !r.Balanced():
		return verdictOff
	case r.Gone:
		return verdictGone
	case r.Shared:
		return verdictShared
	default:
		return "balanced"
	}
}

func verdictStyle(cell string) string {
	switch cell {
	case verdictOff:
		return styleLoud
	case verdictShared, verdictGone:
		return styleDim
	default:
		return styleNone
	}
}

// imbalance says by how much a row is off, and which way.
func imbalance(r event.LedgerRow, opts Options) string {
	known := r.Synspy + r.Unattributed
	what := opts.count(r.Kernel-known) + " unexplained"
	if known > r.Kernel {
		what = opts.count(known-r.Kernel) + " too many counted"
	}
	return fmt.Sprintf("%s in netns %s: kernel %s, synspy %s (%s)", Terminal(r.Counter),
		ledgerNetNS(r),
		opts.count(r.Kernel), opts.count(known), what)
}
