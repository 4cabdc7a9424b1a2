// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/load"
)

// namedAtMost is how many namespaces keep rows of their own where no filter names any: the oldest ones.
const namedAtMost = 1024

// IsFull reports whether a table took no more. Where rows are made on first use there may be no memory for one.
func IsFull(err error) bool { return errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOMEM) }

// Track begins the entries of the namespaces that were found before the gate opens. Those in which a
// listener is named come first, and keep their rows whoever comes later.
func (l *Ledger) Track(found *holders.Found, named func(netns uint64) bool) ([]Entry, error) {
	var entries []Entry
	for ns := range found.Namespaces {
		if only := l.Filter.NetNS; only == 0 || only == uint64(ns.Inode) {
			entries = append(entries, Entry{Namespace: ns})
		}
	}
	isNamed := func(b *Entry) int {
		if named(uint64(b.Inode)) {
			return 1
		}
		return 0
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(isNamed(&b), isNamed(&a)), cmp.Compare(a.ID, b.ID))
	})
	most := namedAtMost
	if l.Filter.Narrows() {
		most = int(l.Sizes.Openings)
	}
	var made uint64
	for i := range entries {
		b := &entries[i]
		row := bpf.SynspyOpening{Net: b.Net, Netns: b.Inode}
		if isNamed(b) == 1 && i < most {
			row.Named = 1
		} else if uint32(i) >= load.Room(l.Sizes.Openings) {
			b.unroomed = true
			continue
		}
		err := l.Collection.Maps["openings"].Update(b.ID, row, ebpf.UpdateNoExist)
		switch {
		case IsFull(err):
			b.unroomed = true
		case errors.Is(err, ebpf.ErrKeyExist): // a listener opened there just now
		case err != nil:
			return nil, fmt.Errorf("track namespace %d: %w", b.Inode, err)
		default:
			made++
		}
	}
	return entries, l.HoldRows("openings", int64(made))
}

// closeOthers adds to the closed entries one of all namespaces that no table had room for: what was counted
// there by cause, and what else the kernel's counters say moved there.
func (l *Ledger) closeOthers() error {
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
		others.merge(&rows.Entry)
	}
	followed := make(map[uint64]bool, len(l.closed))
	for i := range l.closed {
		followed[l.closed[i].ID] = true
	}
	var unroomed []Entry
	for _, b := range l.entries {
		if b.unroomed && !followed[b.ID] {
			unroomed = append(unroomed, b)
		}
	}
	if untracked > 0 { // some that began since may still be there
		found, err := holders.Walk(l.Collection, nil, func(*holders.Holder) {}, nil)
		if err != nil && !errors.Is(err, holders.ErrNoIterator) {
			return err
		}
		for ns := range found.Namespaces {
			if _, known := l.entries[ns.ID]; !known && !followed[ns.ID] {
				unroomed = append(unroomed, Entry{Namespace: ns}) // its counters began at zero
			}
		}
	}
	l.unfollowed = make(map[uint64]bool)
	for i := range l.closed {
		if l.closed[i].unroomed {
			l.unfollowed[uint64(l.closed[i].Inode)] = true
		}
	}
	for i := range unroomed {
		l.unfollowed[uint64(unroomed[i].Inode)] = true
		moved, ok, err := l.sums(unroomed[i].Namespace)
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
func (l *Ledger) Unfollowed() map[uint64]bool { return l.unfollowed }

// merge adds up what was counted in two namespaces, or what is known of those that are gone.
func (b *Entry) merge(o *Entry) {
	for i := range o.outcomes {
		b.outcomes[i] += o.outcomes[i]
		b.filtered[i] += o.filtered[i]
	}
	b.unattributed.add(o.unattributed)
}
