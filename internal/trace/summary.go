// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/session"
)

// suppressedKey is what suppressed and lost records are counted by.
type suppressedKey struct {
	outcome event.Outcome
	socket  uint64
}

// withheldKey is what the owner filters' late verdicts are counted by.
type withheldKey struct {
	outcome event.Outcome
	netns   uint64
}

// withhold counts what the kernel side let through before it was known that an
// owner filter does not want it.
func (t *Trace) withhold(outcome event.Outcome, netns, count uint64) {
	t.withheld[withheldKey{outcome, netns}] += count
}

// writeSuppressed writes how many records were suppressed or lost since that was last written.
func (t *Trace) writeSuppressed() error {
	counts, err := t.Probe.Counts()
	if err != nil {
		return err
	}
	departed := t.Listeners.Departed()
	for socket := range departed {
		if err := t.Probe.Depart(socket); err != nil {
			return err
		}
		t.ForgetTimes(socket)
	}
	crowded, err := t.Probe.Crowded("counts")
	if err != nil {
		return err
	}
	for _, c := range counts {
		// Where there is little room, rows at rest make room as well. So do those that a
		// timer made for a listener that had closed long before.
		gone := departed[c.Listener.Socket] ||
			(crowded || !t.Listeners.Remembers(c.Listener.Socket)) &&
				c.Listener.Socket != 0 &&
				c == t.seen[suppressedKey{c.Outcome, c.Listener.Socket}]
		if gone {
			if c, err = t.Probe.Take(c); err != nil {
				return err
			}
		}
		key := suppressedKey{c.Outcome, c.Listener.Socket}
		last := t.seen[key]
		t.seen[key] = c
		if gone { // what its timers may still add begins at 0 again
			t.taken += c.Delivered
			delete(t.seen, key)
		}
		if err := t.writeSince(c, last); err != nil {
			return err
		}
	}
	return nil
}

// writeSince writes what one row counted since.
func (t *Trace) writeSince(c, last listener.Count) error {
	if !t.Listeners.IsWanted(c.Listener.Socket) {
		t.withhold(c.Outcome, c.Listener.NetNS,
			c.Suppressed-last.Suppressed+c.Lost-last.Lost)
		return nil
	}
	t.written.Suppressed += c.Suppressed - last.Suppressed
	t.written.Lost += c.Lost - last.Lost
	branch := c.Outcome.Branch()
	again := c.Again - last.Again
	for _, h := range []struct {
		kind  string
		count uint64
	}{{"suppressed", c.Suppressed - last.Suppressed}, {"lost", c.Lost - last.Lost}} {
		if h.count == 0 {
			continue
		}
		t.quiet = false
		of := min(again, h.count)
		again -= of
		err := t.stream.Suppressed(event.Suppressed{Header: event.Head(h.kind),
			Count: h.count,
			Cause: branch.Cause,
			Stage: branch.Stage, Action: branch.Action,
			Listener: session.Described(&c.Listener, false),
			Kernel:   event.Kernel{Counters: c.Outcome.CounterNames()},
			Others:   !c.Listener.Known && branch.Stage != event.StageIngress, Again: of})
		if err != nil {
			return err
		}
	}
	return nil
}

// finish writes what was suppressed last, and the summary.
func (t *Trace) finish() error {
	if err := t.writeSuppressed(); err != nil {
		return err
	}
	if err := t.writeSurplus(); err != nil {
		return err
	}
	summary, err := t.summary()
	if err != nil {
		return err
	}
	if err := t.stream.Summary(summary); err != nil {
		return err
	}
	if err := t.stream.Flush(); err != nil {
		return err
	}
	return t.sayMissed(summary.Overflow)
}

// sayMissed says what was not kept.
func (t *Trace) sayMissed(overflow *event.Overflow) error {
	for _, line := range overflow.Sentences() {
		t.say(line)
	}
	missed, err := t.Probe.Missed()
	if err != nil {
		return err
	}
	if missed.Skipped > 0 {
		t.say(fmt.Sprintf("events skipped by the kernel: %d, a program of ours being interrupted by itself: "+
			"deaths before a listener and arrivals may be missing", missed.Skipped))
	}
	if missed.Unanswered > 0 {
		t.say(fmt.Sprintf("SYNs told of as dropped that may have been rejected: %d: "+
			"what this machine sends was not looked at yet", missed.Unanswered))
	}
	return nil
}

func (t *Trace) summary() (event.Summary, error) {
	counted, filtered := t.Probe.Outcomes()
	arrivals, handshakes, err := t.Probe.Arrivals()
	if err != nil {
		return event.Summary{}, err
	}
	accepting, err := t.Probe.Accepting()
	if err != nil && !errors.Is(err, listener.ErrNoAccepts) {
		return event.Summary{}, err
	}
	s := event.Summary{Header: event.Head("summary"),
		DurationMs: time.Since(t.Started).Milliseconds(),
		Handshakes: handshakes, Seen: append(t.Seen(arrivals, accepting),
			pastRows(t.Probe.Past(), listener.Past{})...), Ledger: t.Probe.Balance(),
		Delivered: t.delivered}
	// What the owner filters did not want is not taken back where it was shown
	// while they still did.
	for key, n := range t.withheld {
		filtered[key.outcome] += n
		addFiltered(s.Ledger, key.netns, key.outcome, n)
	}
	s.Ledger = session.WithRows(s.Ledger, t.sharedRows())
	s.Suppressed, s.Lost = t.written.Suppressed, t.written.Lost
	for o := range counted {
		counted[o] -= min(counted[o], filtered[o])
	}
	s.Counts, s.Cookies = CountsOf(counted)
	if s.Overflow, err = t.overflow(accepting); err != nil {
		return event.Summary{}, err
	}
	nameRows(s.Ledger)
	s.Balance()
	return s, nil
}

// nameRows gives the rows the names of their namespaces.
func nameRows(rows []event.LedgerRow) {
	names := kernel.NetNSNames()
	for i := range rows {
		rows[i].Name = names[rows[i].NetNS]
	}
}

// CountsOf sorts what was counted into drops by cause, stage and action, and SYNs
// answered by cookies.
func CountsOf(counted [event.NumOutcomes]uint64) (drops []event.Count, cookies uint64) {
	drops = []event.Count{}
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		switch branch := o.Branch(); {
		case counted[o] == 0:
		case branch.Kind == event.KindDrop:
			drops = event.AddCount(drops,
				event.Count{Cause: branch.Cause, Stage: branch.Stage,
					Action: branch.Action, Count: counted[o]})
		case branch.Kind == event.KindCookie:
			cookies += counted[o]
		}
	}
	return drops, cookies
}

func addFiltered(rows []event.LedgerRow, netns uint64, outcome event.Outcome, count uint64) {
	for _, c := range outcome.Branch().Counters {
		for i := range rows {
			if rows[i].NetNS == netns && rows[i].Counter == c.String() {
				rows[i].Filtered += count
			}
		}
	}
}

// Seen names the listeners that packets reached and that the filters ask for, with
// their accept side where it is given.
func (t *Trace) Seen(arrivals []listener.Arrivals,
	accepting map[uint64]listener.Accepting) []event.Seen {
	seen := []event.Seen{}
	sharing := t.Listeners.Sharing()
	groups := session.NewGroups(sharing, t.Probe.Undivided(sharing, t.Listeners.Lived),
		t.Listeners.Matches)
	for _, a := range arrivals {
		if a.Socket == 0 && a.Syn+a.Ack > 0 && t.Listeners.All() {
			seen = append(seen, event.Seen{Others: true, Syn: a.Syn, Ack: a.Ack,
				Accepting: session.AcceptingOf(accepting, a.Socket)})
			continue
		}
		listener, ok := t.Listeners.Find(a.Socket)
		if !ok || groups.Took(&listener, a) || !t.Listeners.Matches(&listener) ||
			a.Syn+a.Ack == 0 {
			continue
		}
		seen = append(seen, event.Seen{Listener: *session.Described(&listener, false),
			Syn: a.Syn, Ack: a.Ack,
			Accepting: session.AcceptingOf(accepting, a.Socket)})
	}
	seen = append(seen, groups.Seen()...)
	slices.SortFunc(seen, func(a, b event.Seen) int {
		return cmp.Or(cmp.Compare(b.Syn, a.Syn),
			session.CompareListeners(&a.Listener, &b.Listener))
	})
	return seen
}

// sharedRows tells the pages what the owner filters did not want after all, and
// makes the rows.
func (t *Trace) sharedRows() []event.LedgerRow {
	pages := t.Probe.Pages()
	for key, n := range t.withheld {
		for i := range pages {
			if pages[i].NetNS == key.netns {
				pages[i].Filtered[key.outcome] += n
			}
		}
	}
	return t.Shared.Close(pages)
}
