// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
)

// Those that are gone are looked for when a packet found no room, and once the tables are a quarter full: whenever
// this part of them was taken since, and now and then.
const (
	retirePart  = 16
	retireEvery = 10 * time.Second
)

// retiredAtMost is how many namespaces that are gone are remembered one by one.
const retiredAtMost = 4096

// retirement is what is known of the last look.
type retirement struct {
	used, untracked uint64
	at              time.Time
}

// Retire makes room in the kernel side's tables. What was counted in namespaces that
// are gone is kept here, if it was anything. It costs next to nothing while there are few.
func (l *Ledger) Retire() error {
	due, err := l.retireDue()
	if !due || err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, err := l.readEntries()
	if err != nil {
		return err
	}
	var all map[uint64]*counted
	run := l.AnyCPU()
	for i := range entries {
		b := &entries[i]
		answer, err := run.Ask(bpf.SynspyRequestREQUEST_ALIVE, b.ID, b.Namespace)
		if err != nil {
			return err
		}
		if answer != bpf.SynspyAnswerANSWER_GONE {
			continue
		}
		if all == nil { // nothing is counted any more in those that are gone
			if all, err = l.readCounted(); err != nil {
				return err
			}
		}
		if err := l.retire(b, all[b.ID]); err != nil {
			return err
		}
	}
	l.retirement.used, err = l.usedRows()
	return err
}

// retireDue reports whether it is time to.
func (l *Ledger) retireDue() (bool, error) {
	used, err := l.usedRows()
	if err != nil {
		return false, err
	}
	untracked, err := l.untracked()
	if err != nil {
		return false, err
	}
	last, total := l.retirement, uint64(l.Sizes.Openings+l.Sizes.Tallies)
	due := untracked != last.untracked ||
		used > total/4 && (used > last.used+total/retirePart ||
			time.Since(last.at) > retireEvery)
	if due {
		l.retirement = retirement{used, untracked, time.Now()}
	}
	return due, nil
}

// untracked is how many packets and counter movements were of namespaces without a row.
func (l *Ledger) untracked() (n uint64, err error) {
	if err := l.Collection.Variables["untracked"].Get(&n); err != nil {
		return 0, fmt.Errorf("read untracked: %w", err)
	}
	return n, nil
}

// usedRows is how many rows the namespaces have in both of their tables.
func (l *Ledger) usedRows() (used uint64, err error) {
	for _, table := range []string{"openings", "tallies"} {
		rows, err := l.Rows(table)
		if err != nil {
			return 0, err
		}
		used += rows
	}
	return used, nil
}

// retire takes a namespace's rows, which it may have none of, out of the kernel side's tables.
func (l *Ledger) retire(b *Entry, rows *counted) error {
	b.gone = true
	b.count(rows)
	switch {
	case b.empty():
	case len(l.retired) < retiredAtMost:
		l.retired = append(l.retired, *b)
	default:
		l.retiredOthers.merge(b)
	}
	delete(l.entries, b.ID)
	delete(l.Idle, b.ID)
	errs := []error{l.Collection.Maps["openings"].Delete(b.ID), l.HoldRows("openings", -1)}
	if rows != nil {
		for _, cpu := range rows.cpus {
			errs = append(errs,
				l.Collection.Maps["tallies"].Delete(bpf.SynspyNamespaceCpu{Id: b.ID,
					Cpu: cpu}))
		}
		errs = append(errs, l.HoldRows("tallies", -int64(len(rows.cpus))))
		for o, n := range rows.filtered {
			if n > 0 {
				errs = append(errs,
					l.Collection.Maps["filtered"].Delete(bpf.SynspyCountKey{Id: b.ID, Outcome: uint32(o)}))
			}
		}
	}
	for cpu := range l.Possible {
		errs = append(errs,
			l.Collection.Maps["bases"].Delete(bpf.SynspyNamespaceCpu{Id: b.ID,
				Cpu: uint64(cpu)}))
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("retire namespace %d: %w", b.Inode, err)
		}
	}
	return nil
}
