// SPDX-License-Identifier: Apache-2.0

package load

import (
	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/facts"
)

// Table is one of the kernel side's maps, and what becomes of what it has no room for.
type Table struct {
	Object string `json:"-"` // the BPF object it is of
	Name   string `json:"name"`
	Holds  string `json:"holds"` // what a row is
	Rows   uint32 `json:"rows"`  // how many there is room for
	Full   string `json:"full"`  // what happens then
	// Counted is where that is counted: a field of event.Overflow, or of what else comes with the evidence.
	// Empty where nothing is lost.
	Counted string `json:"counted,omitempty"`
	Verdict string `json:"verdict,omitempty"` // what the verdict says then; empty where nothing is lost
}

const (
	onePerCPU  = "one row, made with the map"
	forgetting = "the oldest gives way: what it told is unknown then, and absent"
	noHealth   = "neither health nor that no SYN came is told of what may be among it"
)

// answers say of each map what it holds and what happens when it is full. Their sizes come from the objects.
func answers() []Table {
	return []Table{
		{Object: "synspy", Name: "cpu_states", Holds: "a CPU's state", Full: onePerCPU},
		{Object: "synspy", Name: "offsets", Holds: "CPUs",
			Full: "as many rows as CPUs are possible"},
		{Object: "synspy", Name: "snapshots", Holds: "the reading at hand",
			Full: onePerCPU},
		{Object: "synspy", Name: "listeners_read", Holds: "the listener at hand",
			Full: onePerCPU},
		{Object: "synspy", Name: "ring", Holds: "bytes of records",
			Full:    "the record is lost, its count is not",
			Counted: "lost, and overflow.changes of openings and closings", Verdict: "counts are exact without records; " + noHealth + " where changes were lost"},
		{Object: "synspy", Name: "openings", Holds: "network namespaces",
			Full:    "rows of those that ended are used again, a quarter is kept for those that filters name; the rest is in the row of others",
			Counted: "overflow.namespaces", Verdict: noHealth +
				", and the ledger is not balanced"},
		{Object: "synspy", Name: "bases",
			Holds: "network namespaces and CPUs whose counters were not zero at the start",
			Full:  "nothing can be measured in that namespace: it is told in the row of others", Counted: "overflow.namespaces",
			Verdict: noHealth + ", and the ledger is not balanced"},
		{Object: "synspy", Name: "tallies",
			Holds:   "network namespaces and CPUs in which something moved",
			Full:    "rows of namespaces that ended are used again, a quarter is kept for those that filters name; the rest is in the row of others",
			Counted: "overflow.namespaces", Verdict: noHealth +
				", and the ledger is not balanced"},
		{Object: "synspy", Name: "filtered",
			Holds: "network namespaces and outcomes that filters keep out",
			Full:  "counted in the row of other namespaces: the sums stay exact"},
		{Object: "synspy", Name: "counts", Holds: "listeners and outcomes",
			Full:    "rows at rest, and of listeners that closed, are used again; the rest is in the row of other listeners",
			Counted: "overflow.drops, and overflow.uncounted of those that even that has no row for", Verdict: noHealth},
		{Object: "synspy", Name: "count_places", Holds: "listeners and outcomes that lost packets first",
			Full: "the others have a row in counts: the sums stay exact"},
		{Object: "synspy", Name: "count_owners", Holds: "places of count_places that are taken",
			Full: "as many rows as places: the sums stay exact"},
		{Object: "synspy", Name: "arrived", Holds: "listeners that packets reached",
			Full:    "rows at rest, and of listeners that closed, are used again; the rest is in the row of other listeners",
			Counted: "overflow.syns", Verdict: noHealth +
				"; SYNs of a listener without a row are unknown"},
		{Object: "synspy", Name: "acceptings", Holds: "listeners that connections reached",
			Full:    "rows at rest, and of listeners that closed, are used again; the rest is in the row of other listeners",
			Counted: "overflow.accepts", Verdict: "accepts of a listener without a row are those of other listeners"},
		{Object: "synspy", Name: "accept_places", Holds: "listeners that accepted first",
			Full: "the others have a row in acceptings: the sums stay exact"},
		{Object: "synspy", Name: "accept_owners",
			Holds: "places of accept_places that are taken",
			Full:  "as many rows as places: the sums stay exact"},
		{Object: "synspy", Name: "accept_notes", Holds: "threads in accept(), with kprobes",
			Full: "two whose numbers end alike: the second has a row in accept_calls"},
		{Object: "synspy", Name: "wanted", Holds: "listeners that owner filters judged",
			Full: "who is not judged there is judged when the record comes"},
		{Object: "synspy", Name: "attempts",
			Holds:   "sets of four handshakes that lost a packet",
			Full:    "the oldest of the set gives way: its next packet has no number, and is counted as of another handshake",
			Counted: "overflow.handshakes", Verdict: "which SYNs came again is not told of that time"},
		{Object: "synspy", Name: "closing", Holds: "tasks that closed a listener",
			Full: forgetting + "; a task needs its row at once or never"},
		{Object: "synspy", Name: "sleepers",
			Holds: "threads that slept in accept() at the start", Full: forgetting +
				": its first accept"},
		{Object: "synspy", Name: "acceptors",
			Holds: "processes and listeners that they accept from", Full: forgetting +
				": when it last accepted"},
		{Object: "synspy", Name: "accept_calls",
			Holds: "threads in accept() that accept_notes has no room for",
			Full: forgetting +
				"; what it accepts is known by its place in the queue, or when it is grafted"},
		{Object: "synspy", Name: "listening", Holds: "ports that listen", Full: forgetting +
			": who accepts there"},
		{Object: "synspy", Name: "children", Holds: "processes that accepted",
			Full: "the oldest gives way: it is told of twice"},
		{Object: "synspy", Name: "steered",
			Holds: "places whose packets another listener is given, with tracepoints",
			Full:  forgetting + ": the next handshake that succeeds tells it again"},
		{Object: "sampler", Name: "watched", Holds: "processes whose threads are sampled",
			Full: "the reader asks for fewer"},
		{Object: "sampler", Name: "watched_bits", Holds: "bits of process numbers",
			Full: "as many rows as there are"},
		{Object: "sampler", Name: "threads", Holds: "threads that left a CPU",
			Full:    "the absence is not sampled",
			Counted: "overflow.samples", Verdict: "what threads did is told by fewer samples"},
		{Object: "sampler", Name: "activities", Holds: "threads and what they did",
			Full:    "the sample is not kept",
			Counted: "overflow.samples", Verdict: "what threads did is told by fewer samples"},
		{Object: "sampler", Name: "stacks", Holds: "stacks",
			Full:    "the sample has no stack, and says so",
			Counted: "overflow.samples", Verdict: "stacks are missing from what is told"},
		{Object: "strays", Name: "strays",
			Holds: "kinds of what went wrong with packets on their way out", Full: "counted as of other kinds",
			Counted: "the session's evidence", Verdict: "how many are of kinds that are not told"},
		{Object: "strays", Name: "stacks", Holds: "the stack at hand", Full: onePerCPU},
		{Object: "shortage", Name: "callers", Holds: "threads in accept()",
			Full:    "the call's error is not seen",
			Counted: "the session's evidence", Verdict: "errors of accept() are told as those seen"},
		{Object: "shortage", Name: "shortages", Holds: "processes and errors of accept()",
			Full:    "counted as of others",
			Counted: "the session's evidence", Verdict: "errors of accept() are told as those seen"},
	}
}

// Tables lists the kernel side's maps of which something is counted when they are full, with the sizes that they have here.
func Tables(facts *facts.Facts) ([]Table, error) {
	spec, err := bpf.LoadSynspy()
	if err != nil {
		return nil, err
	}
	if err := size(spec, facts,
		Config{Accepts: true, Filter: Filter{ByOwner: true}}); err != nil {
		return nil, err
	}
	var tables []Table
	for _, t := range answers() {
		if t.Object != "synspy" || t.Counted == "" {
			continue
		}
		t.Rows = spec.Maps[t.Name].MaxEntries
		tables = append(tables, t)
	}
	return tables, nil
}
