// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/scenario"
)

// compare holds synspy's account against what was done: expectation = records =
// the kernel's own counters, read by the lab without BPF.
func compare(v *Verdict, want scenario.Expectation, got *recorder, netns uint64) {
	c, whole := &comparison{verdict: v}, want.Records
	v.Expected, v.Recorded = []event.Count{}, []event.Count{}
	want.Records = slices.DeleteFunc(slices.Clone(want.Records), func(r scenario.Expect) bool {
		what, unseen := unseenBy(got.hooks, r)
		if unseen {
			v.Unseen = append(v.Unseen, what)
			c.instead += shownInstead(got, r)
		}
		return unseen
	})
	if len(v.Unseen) > 0 {
		want.Handshakes = 0 // of what is left there may be fewer
	}
	for _, r := range want.Records {
		v.Expected = event.AddCount(v.Expected,
			event.Count{Cause: r.Cause, Stage: r.Stage, Action: r.Action,
				Count: uint64(r.Count)})
	}
	for i := range got.drops {
		if d := &got.drops[i]; d.Type == "drop" {
			v.Recorded = event.AddCount(v.Recorded,
				event.Count{Cause: d.Cause, Stage: d.Stage, Action: d.Action,
					Count: 1})
		}
	}
	sortCounts(v.Expected)
	sortCounts(v.Recorded)
	c.ledger(want, &got.summary, netns)
	c.counts(want, got)
	for i := range want.Records {
		c.records(&want.Records[i], got, netns)
	}
	c.owners(want, got)
	c.same("summary counts against records", v.Recorded, got.summary.Counts)
	v.Passed = len(v.Mismatches) == 0
	if v.Passed && allRecorded(v, whole) {
		return
	}
	if v.Cannot = uncovered(v, whole, got.hooks); v.Cannot != "" && v.Passed {
		c.fail("nothing that it is about is told here")
		v.Passed = false
	}
}

type comparison struct {
	verdict *Verdict
	instead uint64 // records that stand for unseen ones
}

func (c *comparison) fail(format string, args ...any) {
	c.verdict.Mismatches = append(c.verdict.Mismatches, fmt.Sprintf(format, args...))
}

// same compares two lists of counts, whatever their order.
func (c *comparison) same(what string, want, got []event.Count) {
	got = slices.Clone(got)
	sortCounts(got)
	if !slices.Equal(want, got) {
		c.fail("%s: want %v, got %v", what, want, got)
	}
}

// ledger compares the kernel's counters three ways: as the lab read them, as
// synspy read them, and as synspy explains them.
func (c *comparison) ledger(want scenario.Expectation, summary *event.Summary, netns uint64) {
	if !summary.Balanced {
		c.fail("the ledger does not balance")
	}
	rows := make(map[string]event.LedgerRow)
	for _, row := range summary.Ledger {
		if row.NetNS != netns {
			c.fail("the ledger has a row of namespace %d, which was not asked for",
				row.NetNS)
		}
		if !row.Shared { // those are not the scenario's packets' alone
			rows[row.Counter] = row
		}
	}
	for counter, moved := range want.Counters {
		row := rows[counter.String()]
		if row.Kernel != moved {
			c.fail("%v: the kernel moved it by %d, synspy read %d", counter, moved,
				row.Kernel)
		}
		if row.Synspy+row.Unattributed != moved {
			c.fail("%v: the kernel moved it by %d, synspy explains %d and leaves %d",
				counter, moved, row.Synspy,
				row.Unattributed)
		}
		// Only tracepoints may leave something, and under 1 in 1,000.
		if row.Unattributed > 0 && (c.verdict.Backend != "tracepoint" ||
			row.Unattributed > moved/1000+1) {
			c.fail("%v: %d of %d unattributed", counter, row.Unattributed, moved)
		}
	}
	if summary.Lost > 0 {
		c.fail("%d records lost", summary.Lost)
	}
}

func (c *comparison) counts(want scenario.Expectation, got *recorder) {
	summary := &got.summary
	for _, w := range c.verdict.Expected {
		var have uint64
		for _, r := range c.verdict.Recorded {
			if r.Cause == w.Cause && (w.Stage == event.StageUnknown ||
				r.Stage == w.Stage) &&
				(w.Action == event.ActionUnknown || r.Action == w.Action) {
				have += r.Count
			}
		}
		missed := uint64(0)
		if want.FromCounters {
			missed = summary.Unattributed // of tracepoints, bounded by ledger
		}
		if have > w.Count || have+missed < w.Count {
			c.fail("%v at %v, %v: want %d records, got %d", w.Cause, w.Stage, w.Action,
				w.Count, have)
		}
	}
	var all, expected uint64
	for _, r := range c.verdict.Recorded {
		all += r.Count
	}
	for _, w := range c.verdict.Expected {
		expected += w.Count
	}
	if all > expected+c.instead {
		c.fail("want %d records in all, got %d: %v", expected, all, c.verdict.Recorded)
	}
	if !want.FromCounters && summary.Cookies != uint64(want.Cookies) {
		c.fail("want %d SYNs answered by cookies, got %d", want.Cookies, summary.Cookies)
	}
	if !got.crowded && (want.Handshakes > 0 || len(want.Records) == 0) &&
		summary.Handshakes != uint64(want.Handshakes) {
		c.fail("want %d handshakes, got %d", want.Handshakes, summary.Handshakes)
	}
	var syns uint64
	for _, s := range summary.Seen {
		syns += s.Syn
	}
	if want.Syns > 0 && syns != uint64(want.Syns) {
		c.fail("%d SYNs were sent, synspy saw %d", want.Syns, syns)
	}
}

// records compares what each record of a group says.
func (c *comparison) records(want *scenario.Expect, got *recorder, netns uint64) {
	n := 0
	for i := range got.drops {
		d := &got.drops[i]
		if d.Type != "drop" || d.Cause != want.Cause ||
			(want.Stage != event.StageUnknown && d.Stage != want.Stage) ||
			(want.Action != event.ActionUnknown && d.Action != want.Action) {
			continue
		}
		if want.Listener.IsValid() && d.Listener != nil &&
			d.Listener.Port != want.Listener.Port() {
			continue // of another group
		}
		c.record(want, d, n, netns)
		if n < len(want.Attempts) && int(d.Attempt) != want.Attempts[n] &&
			!(got.crowded && d.Attempt == 0) {
			c.fail("record %d of %v: attempt %d, want %d", n, d.Cause, d.Attempt,
				want.Attempts[n])
		}
		n++
	}
}

func (c *comparison) record(want *scenario.Expect, d *event.Drop, n int, netns uint64) {
	if d.Proof == event.ProofUnknown ||
		(len(want.Cause.Info().Counters) > 1 && d.Proof != event.ProofCounters) {
		c.fail("record %d of %v: proof %v", n, d.Cause, d.Proof)
	}
	if d.Kernel.Function == "" {
		c.fail("record %d of %v names no kernel function", n, d.Cause)
	}
	if want.Hook != "" && d.Kernel.Hook != want.Hook {
		c.fail("record %d of %v: hook %q, want %q", n, d.Cause, d.Kernel.Hook, want.Hook)
	}
	if want.Refusal != "" && d.Kernel.Refusal != want.Refusal {
		c.fail("record %d of %v: refused with %q, want %q", n, d.Cause, d.Kernel.Refusal,
			want.Refusal)
	}
	if want.Sees != "" && d.ClientSees != want.Sees {
		c.fail("record %d of %v: the client sees %q, want %q", n, d.Cause, d.ClientSees,
			want.Sees)
	}
	c.packet(want, d, n)
	l := d.Listener
	if l == nil {
		if d.Stage != event.StageIngress &&
			!(want.OrNoOwner && c.verdict.Backend == "tracepoint") {
			c.fail("record %d of %v names no listener", n, d.Cause)
		}
		return
	}
	if l.NetNS != netns {
		c.fail("record %d: listener of namespace %d, want %d", n, l.NetNS, netns)
	}
	if want.Listener.IsValid() && netip.AddrPortFrom(l.Addr, l.Port) != want.Listener {
		c.fail("record %d: listener %v:%d, want %v", n, l.Addr, l.Port, want.Listener)
	}
	if q := want.AcceptQueue; q.Limit > 0 &&
		(l.AcceptQueue == nil || int(l.AcceptQueue.Len) != q.Len ||
			int(l.AcceptQueue.Limit) != q.Limit) {
		c.fail("record %d: accept queue %+v, want %+v", n, l.AcceptQueue, q)
	}
	if q := want.SynQueue; q.Limit > 0 && (l.SynQueue == nil || int(l.SynQueue.Len) != q.Len ||
		int(l.SynQueue.Limit) != q.Limit) {
		c.fail("record %d: SYN queue %+v, want %+v", n, l.SynQueue, q)
	}
	if len(want.PIDs) > 0 {
		var pids []int
		for _, p := range d.Processes {
			pids = append(pids, int(p.PID))
		}
		if !slices.Equal(pids, want.PIDs) {
			c.fail("record %d: processes %v, want %v", n, pids, want.PIDs)
		}
	}
}

// packet compares whose packet it was.
func (c *comparison) packet(want *scenario.Expect, d *event.Drop, n int) {
	if n < len(want.Clients) {
		var client netip.AddrPort
		if d.Client != nil {
			client = netip.AddrPortFrom(d.Client.Addr, d.Client.Port)
		}
		if client != want.Clients[n] &&
			!(want.AnyOrder && slices.Contains(want.Clients, client)) {
			c.fail("record %d of %v: client %v, want %v", n, d.Cause, client,
				want.Clients[n])
		}
	}
}

// owners makes sure that nobody is named who has nothing to do with it.
func (c *comparison) owners(want scenario.Expectation, got *recorder) {
	for i := range got.drops {
		d := &got.drops[i]
		for _, p := range d.Processes {
			if !slices.Contains(want.PIDs, int(p.PID)) {
				c.fail("record %d names process %d (%q), which holds no listener here", i, p.PID, p.Comm)
			} else if comm := want.Comms[int(p.PID)]; comm != "" && comm != p.Comm {
				c.fail("record %d: process %d is called %q, want %q", i, p.PID,
					p.Comm, comm)
			}
		}
		if len(d.Processes) == 0 && d.Listener != nil &&
			d.Cause != event.CauseListenerClosed {
			c.fail("record %d of %v names no process", i, d.Cause)
		}
		if d.Listener != nil && slices.Contains(want.Quiet, d.Listener.NetNS) {
			c.fail("record %d is of a namespace that dropped nothing", i)
		}
	}
}
