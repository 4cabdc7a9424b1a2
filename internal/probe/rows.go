// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
)

// namedAtMost is how many namespaces keep rows of their own where no filter names any: the oldest ones.
const namedAtMost = 1024

// isFull tells whether a table took no more. Where rows are made on first use there may be no memory for one.
func isFull(err error) bool { return errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOMEM) }

// track begins the books of the namespaces that hold these listeners before the gate opens. Those in which a
// listener is named come first, and keep their rows whoever comes later.
func (p *Probe) track(holders *Holders, named func(*Listener) bool) ([]book, error) {
	wanted := make(map[uint64]bool)
	for i := range holders.List {
		if l := &holders.List[i].Listener; !wanted[l.NetNS] && named(l) {
			wanted[l.NetNS] = true
		}
	}
	var books []book
	for ns := range holders.namespaces {
		if only := p.config.Filter.NetNS; only == 0 || only == uint64(ns.inode) {
			books = append(books, book{namespace: ns})
		}
	}
	isNamed := func(b *book) int {
		if wanted[uint64(b.inode)] {
			return 1
		}
		return 0
	}
	slices.SortFunc(books, func(a, b book) int {
		return cmp.Or(cmp.Compare(isNamed(&b), isNamed(&a)), cmp.Compare(a.id, b.id))
	})
	most := namedAtMost
	if p.config.Filter.narrows() {
		most = int(p.sizes.openings)
	}
	var made uint64
	for i := range books {
		b := &books[i]
		row := bpf.SynspyOpening{Net: b.net, Netns: b.inode}
		if isNamed(b) == 1 && i < most {
			row.Named = 1
		} else if uint32(i) >= room(p.sizes.openings) {
			b.unroomed = true
			continue
		}
		err := p.collection.Maps["openings"].Update(b.id, row, ebpf.UpdateNoExist)
		switch {
		case isFull(err):
			b.unroomed = true
		case errors.Is(err, ebpf.ErrKeyExist): // a listener opened there just now
		case err != nil:
			return nil, fmt.Errorf("track namespace %d: %w", b.inode, err)
		default:
			made++
		}
	}
	return books, p.holdRows("openings", int64(made))
}

// holdRows tells the kernel side how many rows of a table Go made, or, if negative, took out.
func (p *Probe) holdRows(table string, more int64) error {
	p.held[table] += more
	if err := p.collection.Variables[table+"_held"].Set(uint64(p.held[table])); err != nil {
		return fmt.Errorf("count the rows of %s: %w", table, err)
	}
	return nil
}

// makeOtherRows makes the rows of what the tables have no room for.
func (p *Probe) makeOtherRows() error {
	put := func(table string, key, value any) error {
		if err := p.collection.Maps[table].Put(key, value); err != nil {
			return fmt.Errorf("make the row of others in %s: %w", table, err)
		}
		return nil
	}
	var errs []error
	for o := event.OutcomeNone + 1; o < event.NumOutcomes; o++ {
		other := bpf.SynspyCountKey{Outcome: uint32(o)}
		errs = append(errs, put("counts", other, bpf.SynspyCount{}), put("withheld", other, uint64(0)))
	}
	for cpu := range p.cpus {
		errs = append(errs, put("tallies", bpf.SynspyPlaceKey{Cpu: uint64(cpu)}, bpf.SynspyTally{}))
	}
	errs = append(errs, put("arrived", uint64(0), bpf.SynspyArrivals{}))
	if p.config.Accepts {
		errs = append(errs, put("acceptings", uint64(0), bpf.SynspyAccepting{}))
	}
	return errors.Join(errs...)
}

// closeOthers adds to the closed books one of all namespaces that no table had room for: what was counted
// there by cause, and what else the kernel's counters say moved there.
func (p *Probe) closeOthers() error {
	all, err := p.readCounted()
	if err != nil {
		return err
	}
	missed, err := p.Missed()
	if err != nil {
		return err
	}
	others := p.retiredOthers
	others.others = true
	if rows := all[0]; rows != nil {
		others.merge(&rows.book)
	}
	followed := make(map[uint64]bool, len(p.closed))
	for i := range p.closed {
		followed[p.closed[i].id] = true
	}
	var unroomed []book
	for _, b := range p.books {
		if b.unroomed && !followed[b.id] {
			unroomed = append(unroomed, b)
		}
	}
	if missed.Untracked > 0 { // some that began since may still be there
		holders, err := p.Holders()
		if err != nil && !errors.Is(err, ErrNoIterator) {
			return err
		}
		for ns := range holders.namespaces {
			if _, known := p.books[ns.id]; !known && !followed[ns.id] {
				unroomed = append(unroomed, book{namespace: ns}) // its counters began at zero
			}
		}
	}
	p.unfollowed = make(map[uint64]bool)
	for i := range p.closed {
		if p.closed[i].unroomed {
			p.unfollowed[uint64(p.closed[i].inode)] = true
		}
	}
	for i := range unroomed {
		p.unfollowed[uint64(unroomed[i].inode)] = true
		moved, ok, err := p.sums(unroomed[i].namespace)
		if err != nil {
			return fmt.Errorf("close the ledger: %w", err)
		}
		if !ok || moved == unroomed[i].opening {
			continue
		}
		moved.subtract(unroomed[i].opening)
		others.closing.add(moved)
		others.unattributed.add(moved)
	}
	if !others.empty() {
		p.closed = append(p.closed, others)
	}
	return nil
}

// Unfollowed are, after Stop, the inodes of the namespaces that no table had room for, as far as they are known.
func (p *Probe) Unfollowed() map[uint64]bool { return p.unfollowed }

// merge adds up what was counted in two namespaces, or what is known of those that are gone.
func (b *book) merge(o *book) {
	for i := range o.outcomes {
		b.outcomes[i] += o.outcomes[i]
		b.filtered[i] += o.filtered[i]
	}
	b.unattributed.add(o.unattributed)
}
