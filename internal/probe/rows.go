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
)

// namedAtMost is how many namespaces keep rows of their own where no filter names any: the oldest ones.
const namedAtMost = 1024

// isFull tells whether a table took no more. Where rows are made on first use there may be no memory for one.
func isFull(err error) bool { return errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOMEM) }

// track begins the books of the namespaces that were found before the gate opens. Those in which a
// listener is named come first, and keep their rows whoever comes later.
func (l *ledger) track(found *Found, named func(netns uint64) bool) ([]book, error) {
	var books []book
	for ns := range found.namespaces {
		if only := l.filter.NetNS; only == 0 || only == uint64(ns.inode) {
			books = append(books, book{namespace: ns})
		}
	}
	isNamed := func(b *book) int {
		if named(uint64(b.inode)) {
			return 1
		}
		return 0
	}
	slices.SortFunc(books, func(a, b book) int {
		return cmp.Or(cmp.Compare(isNamed(&b), isNamed(&a)), cmp.Compare(a.id, b.id))
	})
	most := namedAtMost
	if l.filter.narrows() {
		most = int(l.sizes.openings)
	}
	var made uint64
	for i := range books {
		b := &books[i]
		row := bpf.SynspyOpening{Net: b.net, Netns: b.inode}
		if isNamed(b) == 1 && i < most {
			row.Named = 1
		} else if uint32(i) >= room(l.sizes.openings) {
			b.unroomed = true
			continue
		}
		err := l.collection.Maps["openings"].Update(b.id, row, ebpf.UpdateNoExist)
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
	return books, l.holdRows("openings", int64(made))
}

// closeOthers adds to the closed books one of all namespaces that no table had room for: what was counted
// there by cause, and what else the kernel's counters say moved there.
func (l *ledger) closeOthers() error {
	all, err := l.readCounted()
	if err != nil {
		return err
	}
	untracked, err := l.untracked()
	if err != nil {
		return err
	}
	others := l.retiredOthers
	others.others = true
	if rows := all[0]; rows != nil {
		others.merge(&rows.book)
	}
	followed := make(map[uint64]bool, len(l.closed))
	for i := range l.closed {
		followed[l.closed[i].id] = true
	}
	var unroomed []book
	for _, b := range l.books {
		if b.unroomed && !followed[b.id] {
			unroomed = append(unroomed, b)
		}
	}
	if untracked > 0 { // some that began since may still be there
		found, err := walk(l.collection, nil, func(*Holder) {}, nil)
		if err != nil && !errors.Is(err, ErrNoIterator) {
			return err
		}
		for ns := range found.namespaces {
			if _, known := l.books[ns.id]; !known && !followed[ns.id] {
				unroomed = append(unroomed, book{namespace: ns}) // its counters began at zero
			}
		}
	}
	l.unfollowed = make(map[uint64]bool)
	for i := range l.closed {
		if l.closed[i].unroomed {
			l.unfollowed[uint64(l.closed[i].inode)] = true
		}
	}
	for i := range unroomed {
		l.unfollowed[uint64(unroomed[i].inode)] = true
		moved, ok, err := l.sums(unroomed[i].namespace)
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
		l.closed = append(l.closed, others)
	}
	return nil
}

// Unfollowed are, after Stop, the inodes of the namespaces that no table had room for, as far as they are known.
func (l *ledger) Unfollowed() map[uint64]bool { return l.unfollowed }

// merge adds up what was counted in two namespaces, or what is known of those that are gone.
func (b *book) merge(o *book) {
	for i := range o.outcomes {
		b.outcomes[i] += o.outcomes[i]
		b.filtered[i] += o.filtered[i]
	}
	b.unattributed.add(o.unattributed)
}
