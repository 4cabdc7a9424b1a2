package probe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
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

// namespace is a network namespace as the kernel side names it.
type namespace struct {
	id    uint64 // its key: net_id() of bpf/ledger.h
	net   uint64 // address of its struct net
	inode uint32
}

// book is a namespace's page of the ledger.
type book struct {
	namespace
	opened  bool
	opening vector // kernel counters when counting began
	gated   vector // what had moved unseen before that
	closing vector
	gone    bool

	outcomes     [event.NumOutcomes]uint64
	filtered     [event.NumOutcomes]uint64
	unattributed vector
}

// openLedger takes the opening values, CPU by CPU, and opens each CPU's gate.
// Traffic goes on meanwhile: what was counted between the gate's opening and
// the reading is taken off again, so the values are those at the gate.
func (p *Probe) openLedger() error {
	books, err := p.readBooks()
	if err != nil {
		return err
	}
	err = p.onEachCPU(func(_ int, run runner) error {
		for i := range books { // tracepoints measure from here
			if _, _, err := p.snapshot(run, books[i].namespace); err != nil {
				return err
			}
		}
		if _, err := run.ask(bpf.SynspyRequestREQUEST_GATE, 1, namespace{}); err != nil {
			return err
		}
		for i := range books {
			b := &books[i]
			shot, ok, err := p.snapshot(run, b.namespace)
			if err != nil {
				return err
			}
			b.gone = b.gone || !ok
			b.opening.add(vector(shot.Counters))
			b.opening.subtract(explained(shot.Tally.Outcomes))
			b.opening.subtract(vector(shot.Tally.Unattributed))
			b.opening.subtract(unseen(&shot))
			b.gated.add(vector(shot.Tally.Gated))
			b.opened = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	p.books = make(map[uint64]book, len(books))
	for _, b := range books {
		if !b.gone {
			p.books[b.id] = b
		}
	}
	return nil
}

// closeLedger shuts each CPU's gate and takes the closing values. What moved
// after the gate shut is counted apart and taken off. Namespaces are listed in
// between, so that none is missing in which something was counted.
func (p *Probe) closeLedger() error {
	err := p.onEachCPU(func(_ int, run runner) error {
		_, err := run.ask(bpf.SynspyRequestREQUEST_GATE, 0, namespace{})
		return err
	})
	if err != nil {
		return fmt.Errorf("close the gates: %w", err)
	}
	if p.closed, err = p.settle(func(*book) bool { return true }); err == nil {
		p.closed = append(p.closed, p.retired...)
	}
	return err
}

// settle takes the values, as they are now, of the namespaces that are asked for.
func (p *Probe) settle(wanted func(*book) bool) ([]book, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	books, err := p.readBooks()
	if err != nil {
		return nil, err
	}
	books = slices.DeleteFunc(books, func(b book) bool { return !wanted(&b) })
	for i := range books {
		b := &books[i]
		if known, ok := p.books[b.id]; ok {
			*b = known
			continue
		}
		// First seen while running: the kernel side took its opening values.
		var opening bpf.SynspyOpening
		if err := p.collection.Maps["openings"].Lookup(b.id, &opening); err == nil {
			b.opening, b.opened = vector(opening.Counters), true
		}
	}
	shots := make([][]bpf.SynspySnapshot, len(books))
	err = p.onEachCPU(func(_ int, run runner) error {
		for i := range books {
			shot, ok, err := p.snapshot(run, books[i].namespace)
			if err != nil {
				return err
			}
			if !ok {
				books[i].gone = true
				continue
			}
			shots[i] = append(shots[i], shot)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("close the ledger: %w", err)
	}
	for i := range books {
		b := &books[i]
		if b.gone {
			if err := p.countGone(b); err != nil {
				return nil, err
			}
			continue
		}
		var gated vector
		for _, shot := range shots[i] {
			b.closing.add(vector(shot.Counters))
			gated.add(vector(shot.Tally.Gated))
			b.count(&shot.Tally)
			b.unattributed.add(unseen(&shot))
		}
		gated.subtract(b.gated)
		b.closing.subtract(gated)
	}
	return books, nil
}

// unseen is what moved on a CPU since its last event there: the events of those packets were
// missed, and none has found the movement yet.
func unseen(shot *bpf.SynspySnapshot) vector {
	v := vector(shot.Counters)
	v.subtract(vector(shot.Tally.Seen))
	return v
}

func (b *book) count(tally *bpf.SynspyTally) {
	for o := range tally.Outcomes {
		b.outcomes[o] += tally.Outcomes[o]
		b.filtered[o] += tally.Filtered[o]
	}
	b.unattributed.add(vector(tally.Unattributed))
}

// countGone counts what was seen in a namespace that is no more.
func (p *Probe) countGone(b *book) error {
	var tallies []bpf.SynspyTally
	if err := p.collection.Maps["tallies"].Lookup(b.id, &tallies); err != nil {
		return fmt.Errorf("read tally of namespace %d: %w", b.inode, err)
	}
	for i := range tallies {
		b.count(&tallies[i])
	}
	return nil
}

// readBooks lists the namespaces that are tracked now.
func (p *Probe) readBooks() ([]book, error) {
	var (
		id      uint64
		tallies []bpf.SynspyTally
		books   []book
	)
	entries := p.collection.Maps["tallies"].Iterate()
	for entries.Next(&id, &tallies) {
		b := book{namespace: namespace{id: id}}
		for i := range tallies {
			b.inode = max(b.inode, tallies[i].Netns)
			b.net = max(b.net, tallies[i].Net)
		}
		books = append(books, b)
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("list tracked namespaces: %w", err)
	}
	return books, nil
}

// track begins a namespace's book before the gate opens.
func (p *Probe) track(ns namespace) error {
	if want := p.config.Filter.NetNS; want != 0 && want != uint64(ns.inode) {
		return nil
	}
	values := make([]bpf.SynspyTally, p.cpus)
	for i := range values {
		values[i].Net, values[i].Netns = ns.net, ns.inode
	}
	err := p.collection.Maps["tallies"].Update(ns.id, values, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("track namespace %d: %w", ns.inode, err)
	}
	return nil
}

// Ledger returns the balance after Stop: a row per namespace and counter. Of
// namespaces that vanished only what synspy counted can be told, so rows in which
// it counted nothing are left out; so are namespaces without listeners in which
// nothing moved.
func (p *Probe) Ledger() []event.LedgerRow {
	var rows []event.LedgerRow
	for i := range p.closed {
		b := &p.closed[i]
		if p.idle[b.id] && b.closing == b.opening {
			continue
		}
		rows = append(rows, b.rows()...)
	}
	slices.SortStableFunc(rows, func(a, b event.LedgerRow) int { return cmp.Compare(a.NetNS, b.NetNS) })
	return rows
}

func (b *book) rows() []event.LedgerRow {
	synspy, filtered := explained(b.outcomes), explained(b.filtered)
	var rows []event.LedgerRow
	for c := range event.NumCounters {
		row := event.LedgerRow{NetNS: uint64(b.inode), Counter: c.String(), Synspy: synspy[c],
			Unattributed: b.unattributed[c], Filtered: filtered[c], Gone: b.gone}
		if !b.gone {
			row.Kernel = b.closing[c] - b.opening[c]
		} else if row.Synspy+row.Unattributed == 0 {
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
func (p *Probe) Account(netns uint64) (Account, error) {
	books, err := p.settle(func(b *book) bool { return uint64(b.inode) == netns })
	if err != nil {
		return Account{}, err
	}
	var account Account
	for i := range books {
		b := &books[i]
		if b.gone {
			continue // an earlier one that had this number
		}
		account.Rows, account.Counted = b.rows(), b.outcomes
	}
	return account, nil
}

// Outcomes returns, after Stop, how often each outcome was counted over all
// namespaces, and how many of those the filters kept out.
func (p *Probe) Outcomes() (counted, filtered [event.NumOutcomes]uint64) {
	for _, b := range p.closed {
		for o := range b.outcomes {
			counted[o] += b.outcomes[o]
			filtered[o] += b.filtered[o]
		}
	}
	return counted, filtered
}
