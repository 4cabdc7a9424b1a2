// SPDX-License-Identifier: Apache-2.0

// Package ledger holds what the kernel's counters moved by, in each network namespace, against what
// the programs counted there.
package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/load"
)

// vector is a value per counter of the closed list.
type vector [event.NumCounters]uint64

func (v *vector) add(o vector) {
	for i := range v {
		v[i] += o[i]
	}
}

func (v *vector) subtract(o vector) {
	for i := range v {
		v[i] -= o[i]
	}
}

// explained is what counted outcomes say that the counters moved by: the lists
// of internal/event/outcome.go, never the deltas that were measured.
func explained(outcomes [event.NumOutcomes]uint64) vector {
	var sum vector
	for o, count := range outcomes {
		for _, c := range event.Outcome(o).Branch().Counters {
			sum[c] += count
		}
	}
	return sum
}

// Entry is what the ledger keeps of a namespace.
type Entry struct {
	load.Namespace
	opening vector // kernel counters when counting began
	gated   vector // what had moved unseen before that
	closing vector
	gone    bool
	// The tables have no room for it: all that is known is what its counters moved by.
	unroomed bool
	others   bool // it stands for all of those

	outcomes     [event.NumOutcomes]uint64
	filtered     [event.NumOutcomes]uint64
	unattributed vector
}

// Ledger holds what the kernel's counters moved by in each namespace against what was counted there.
type Ledger struct {
	*load.Objects
	Filter     *load.Filter
	mu         sync.Mutex // guards what follows
	entries    map[uint64]Entry
	Idle       map[uint64]bool // namespaces listed at the start: whether nothing listened there
	retired    []Entry         // of namespaces that are gone
	retirement retirement      // when those were last looked for
	// What is known of namespaces that are gone, beyond as many as are remembered one by one.
	retiredOthers Entry
	unfollowed    map[uint64]bool
	closed        []Entry
}

// OpenLedger takes the opening values of these namespaces, and opens each CPU's gate.
//
// Where all counters are zero there is nothing to take. The others are read CPU by CPU. Traffic goes on
// meanwhile: what was counted between the gate's opening and the reading is taken off again, so the values
// are those at the gate.
func (l *Ledger) OpenLedger(entries []Entry) error {
	var busy []*Entry
	for i := range entries {
		b := &entries[i]
		if err := l.openEntry(b); err != nil {
			return fmt.Errorf("open the ledger: %w", err)
		}
		if b.opening != (vector{}) && !b.gone && !b.unroomed {
			b.opening = vector{}
			busy = append(busy, b)
		}
	}
	err := l.OnEachCPU(func(_ int, run load.Runner) error {
		for _, b := range busy { // what moves is measured from here
			if _, err := run.Ask(bpf.SynspyRequestREQUEST_BASE, b.ID,
				b.Namespace); err != nil {
				return err
			}
		}
		if _, err := run.Ask(bpf.SynspyRequestREQUEST_GATE, 1,
			load.Namespace{}); err != nil {
			return err
		}
		for _, b := range busy {
			shot, ok, err := l.Snapshot(run, b.Namespace)
			if err != nil {
				return err
			}
			b.gone = b.gone || !ok
			b.opening.add(vector(shot.Now.Counters))
			b.opening.subtract(explained(shot.Tally.Outcomes))
			b.opening.subtract(vector(shot.Tally.Unattributed))
			b.opening.subtract(unseen(&shot))
			b.gated.add(vector(shot.Tally.Gated))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	l.entries = make(map[uint64]Entry, len(entries))
	for _, b := range entries {
		if !b.gone {
			l.entries[b.ID] = b
		}
	}
	return nil
}

// openEntry has a namespace's row filled in, and reads the sums over all CPUs.
func (l *Ledger) openEntry(b *Entry) error {
	request := bpf.SynspyRequestREQUEST_OPEN
	if b.unroomed {
		request = bpf.SynspyRequestREQUEST_SUM
	}
	answer, err := l.AnyCPU().Ask(request, b.ID, b.Namespace)
	if err != nil {
		return err
	}
	if b.gone = answer == bpf.SynspyAnswerANSWER_GONE; b.gone {
		return nil
	}
	if b.unroomed {
		b.opening, err = l.readSums()
		return err
	}
	var row bpf.SynspyOpening
	if err := l.Collection.Maps["openings"].Lookup(b.ID, &row); err != nil {
		return fmt.Errorf("read opening of namespace %d: %w", b.Inode, err)
	}
	b.opening = vector(row.Then.Counters)
	return nil
}

// readSums returns what REQUEST_SUM found.
func (l *Ledger) readSums() (vector, error) {
	var shot bpf.SynspySnapshot
	if err := l.Collection.Maps["snapshots"].Lookup(uint32(0), &shot); err != nil {
		return vector{}, fmt.Errorf("read snapshot: %w", err)
	}
	return vector(shot.Now.Counters), nil
}

// sums are a namespace's counters over all CPUs; ok is false when it is gone.
func (l *Ledger) sums(ns load.Namespace) (sums vector, ok bool, err error) {
	answer, err := l.AnyCPU().Ask(bpf.SynspyRequestREQUEST_SUM, ns.ID, ns)
	if err != nil || answer == bpf.SynspyAnswerANSWER_GONE {
		return vector{}, false, err
	}
	sums, err = l.readSums()
	return sums, true, err
}

// CloseLedger shuts each CPU's gate and takes the closing values. What moved
// after the gate shut is counted apart and taken off. Namespaces are listed in
// between, so that none is missing in which something was counted.
func (l *Ledger) CloseLedger() error {
	err := l.OnEachCPU(func(_ int, run load.Runner) error {
		_, err := run.Ask(bpf.SynspyRequestREQUEST_GATE, 0, load.Namespace{})
		return err
	})
	if err != nil {
		return fmt.Errorf("close the gates: %w", err)
	}
	if l.closed, err = l.settle(func(*Entry) bool { return true }); err != nil {
		return err
	}
	l.closed = append(l.closed, l.retired...)
	return l.closeOthers()
}

// settle takes the values, as they are now, of the namespaces that are asked for.
func (l *Ledger) settle(wanted func(*Entry) bool) ([]Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, err := l.readEntries()
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(b Entry) bool { return !wanted(&b) })
	counted, err := l.readCounted()
	if err != nil {
		return nil, err
	}
	var moved []*Entry
	for i := range entries {
		b := &entries[i]
		if known, ok := l.entries[b.ID]; ok {
			if known.unroomed { // it got a row meanwhile: what moved before was not seen
				known.unattributed.add(b.opening)
				known.unattributed.subtract(known.opening)
			}
			known.unroomed = b.unroomed
			*b = known
		}
		sums, ok, err := l.sums(b.Namespace)
		switch {
		case err != nil:
			return nil, fmt.Errorf("close the ledger: %w", err)
		case !ok:
			b.gone = true
			b.count(counted[b.ID])
		case b.unroomed: // no row of a CPU could be made
			b.closing = sums
			b.unattributed = sums
			b.unattributed.subtract(b.opening)
		case counted[b.ID] == nil && sums == b.opening:
			b.closing = sums
		default:
			moved = append(moved, b)
		}
	}
	shots := make([][]bpf.SynspySnapshot, len(moved))
	err = l.OnEachCPU(func(_ int, run load.Runner) error {
		for i, b := range moved {
			shot, ok, err := l.Snapshot(run, b.Namespace)
			if err != nil {
				return err
			}
			if !ok {
				b.gone = true
				continue
			}
			shots[i] = append(shots[i], shot)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("close the ledger: %w", err)
	}
	for i, b := range moved {
		rows := counted[b.ID]
		if b.gone {
			b.count(rows)
			continue
		}
		var gated vector
		for _, shot := range shots[i] {
			b.closing.add(vector(shot.Now.Counters))
			gated.add(vector(shot.Tally.Gated))
			b.add(&shot.Tally)
			b.unattributed.add(unseen(&shot))
		}
		if rows != nil {
			b.filtered = rows.filtered
		}
		gated.subtract(b.gated)
		b.closing.subtract(gated)
	}
	return entries, nil
}

// unseen is what moved on a CPU since its last event there: the events of those packets were
// missed, and none has found the movement yet.
func unseen(shot *bpf.SynspySnapshot) vector {
	v := vector(shot.Now.Counters)
	v.subtract(vector(shot.Tally.Seen))
	return v
}

func (b *Entry) add(tally *bpf.SynspyTally) {
	for o := range tally.Outcomes {
		b.outcomes[o] += tally.Outcomes[o]
	}
	b.unattributed.add(vector(tally.Unattributed))
}

// counted is what the kernel side's tables have of one namespace, over all CPUs.
type counted struct {
	Entry          // outcomes, filtered and unattributed
	cpus  []uint64 // those that have rows
}

// count takes over what was counted in a namespace that is no more; rows may be nil.
func (b *Entry) count(rows *counted) {
	if rows == nil {
		return
	}
	b.outcomes, b.filtered = rows.outcomes, rows.filtered
	b.unattributed.add(rows.unattributed)
}

// readCounted reads what was counted, by namespace; 0 is the row of other namespaces.
func (l *Ledger) readCounted() (map[uint64]*counted, error) {
	all := make(map[uint64]*counted)
	of := func(id uint64) *counted {
		if all[id] == nil {
			all[id] = &counted{}
		}
		return all[id]
	}
	var (
		place bpf.SynspyNamespaceCpu
		tally bpf.SynspyTally
	)
	entries := l.Collection.Maps["tallies"].Iterate()
	for entries.Next(&place, &tally) {
		c := of(place.Id)
		c.add(&tally)
		c.cpus = append(c.cpus, place.Cpu)
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read tallies: %w", err)
	}
	var (
		key   bpf.SynspyCountKey
		count uint64
	)
	entries = l.Collection.Maps["filtered"].Iterate()
	for entries.Next(&key, &count) {
		if count > 0 {
			of(key.Id).filtered[key.Outcome] += count
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read what filters kept out: %w", err)
	}
	return all, nil
}

// readEntries lists the namespaces that are followed now.
func (l *Ledger) readEntries() ([]Entry, error) {
	var (
		id      uint64
		row     bpf.SynspyOpening
		entries []Entry
	)
	iterator := l.Collection.Maps["openings"].Iterate()
	for iterator.Next(&id, &row) {
		if row.Net == 0 { // it is being made this moment
			continue
		}
		entries = append(entries,
			Entry{Namespace: load.Namespace{ID: id, Net: row.Net, Inode: row.Netns},
				opening: vector(row.Then.Counters), unroomed: row.Unbased != 0})
	}
	if err := iterator.Err(); err != nil {
		return nil, fmt.Errorf("list tracked namespaces: %w", err)
	}
	return entries, nil
}

// ledgerAtRest is how many namespaces there may be for the ledger to have rows of those in which nothing moved.
const ledgerAtRest = 512

// empty reports whether nothing was counted there.
func (b *Entry) empty() bool {
	return b.outcomes == (Entry{}).outcomes && b.filtered == (Entry{}).filtered &&
		b.unattributed == vector{}
}

// Balance returns the ledger after Stop: a row per namespace and counter. Of
// namespaces that vanished only what synspy counted can be told, so rows in which
// it counted nothing are left out; so are namespaces without listeners in which
// nothing moved.
func (l *Ledger) Balance() []event.LedgerRow {
	var rows []event.LedgerRow
	many := len(l.closed) > ledgerAtRest
	for i := range l.closed {
		b := &l.closed[i]
		if (many || l.Idle[b.ID]) && b.empty() && b.closing == b.opening {
			continue
		}
		rows = append(rows, b.rows()...)
	}
	slices.SortStableFunc(rows,
		func(a, b event.LedgerRow) int { return cmp.Compare(a.NetNS, b.NetNS) })
	return rows
}

func (b *Entry) rows() []event.LedgerRow {
	synspy, filtered := explained(b.outcomes), explained(b.filtered)
	var rows []event.LedgerRow
	for c := range event.NumCounters {
		row := event.LedgerRow{NetNS: uint64(b.Inode), Counter: c.String(),
			Synspy:       synspy[c],
			Unattributed: b.unattributed[c], Filtered: filtered[c], Gone: b.gone,
			Others: b.others}
		if !b.gone {
			row.Kernel = b.closing[c] - b.opening[c]
		}
		if (b.gone || b.others) && row.Synspy+row.Unattributed == 0 {
			continue
		}
		rows = append(rows, row)
	}
	return rows
}

// Account is the state of one namespace's page of the ledger.
type Account struct {
	Rows    []event.LedgerRow
	Counted [event.NumOutcomes]uint64
}

// Account returns what has become of a namespace so far, while everything goes
// on: on each CPU the kernel's counters and the counts are read together. It is
// empty for one in which nothing ever listened or died. None may ask while Start runs.
func (l *Ledger) Account(netns uint64) (Account, error) {
	entries, err := l.settle(func(b *Entry) bool { return uint64(b.Inode) == netns })
	if err != nil {
		return Account{}, err
	}
	var account Account
	for i := range entries {
		b := &entries[i]
		if b.gone {
			continue // an earlier one that had this number
		}
		account.Rows, account.Counted = b.rows(), b.outcomes
	}
	return account, nil
}

// Outcomes returns, after Stop, how often each outcome was counted over all
// namespaces, and how many of those the filters kept out.
func (l *Ledger) Outcomes() (counted, filtered [event.NumOutcomes]uint64) {
	for _, b := range l.closed {
		for o := range b.outcomes {
			counted[o] += b.outcomes[o]
			filtered[o] += b.filtered[o]
		}
	}
	return counted, filtered
}
