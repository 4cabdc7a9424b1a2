// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/ledger"
)

// sharedLedger keeps the ledger's rows of the counters that other traffic moves
// too. It reads them without BPF, before the first packet is counted and after the
// last, so that no counted packet moved what is not in between. A namespace that it
// cannot read has no such rows.
type sharedLedger struct {
	only    uint64 // namespace, 0: all
	log     *slog.Logger
	listed  chan []kernel.NetNS
	through map[uint64]kernel.NetNS // by inode: how it was read
	opening map[uint64]snapshot
}

// snapshot is what a namespace's counters were at one time, and the task through
// which they were read: zeros where it was entered.
type snapshot struct {
	counters kernel.SNMP
	pid      uint32
	started  uint64 // clock ticks since boot
}

// How long the readings may take. Each namespace takes about 0.15 ms of CPU time,
// and the ledger has room for 512.
const (
	sharedOpening = 200 * time.Millisecond // the ready record waits for it
	sharedClosing = time.Second
	sharedReaders = 4 // threads
)

// beginShared lists the namespaces in the background: where there are many
// processes that takes as long as what is to be done before open.
func beginShared(only uint64, log *slog.Logger) *sharedLedger {
	l := &sharedLedger{only: only, log: log, listed: make(chan []kernel.NetNS, 1)}
	go func() { l.listed <- l.list() }()
	return l
}

// list lists the namespaces to read; none where that is not allowed.
func (l *sharedLedger) list() []kernel.NetNS {
	list, _, err := kernel.NetNamespaces("/proc")
	if err != nil {
		l.log.Debug("list network namespaces", "error", err)
	}
	return slices.DeleteFunc(list,
		func(ns kernel.NetNS) bool { return l.only != 0 && ns.Inode != l.only })
}

// open takes the opening values. It comes between the probe's list of namespaces
// and its first count: one that is there at both times is the one that is read.
func (l *sharedLedger) open() {
	began := time.Now()
	l.through = make(map[uint64]kernel.NetNS)
	select {
	case list := <-l.listed:
		l.opening = l.read(list, began.Add(sharedOpening))
		for _, ns := range list {
			var pids []uint32
			if first := l.opening[ns.Inode].pid; first != 0 { // see sameTask
				pids = append(pids, first)
			}
			pids = append(pids, ns.Through[:min(len(ns.Through), ThroughAtMost-1)]...)
			l.through[ns.Inode] = kernel.NetNS{Inode: ns.Inode, Names: ns.Names,
				Through: pids}
		}
	case <-time.After(sharedOpening):
	}
	l.log.Debug("read shared counters", "namespaces", len(l.opening), "took", time.Since(began))
}

// read reads of the namespaces, as many as it can until then, the counters that
// anything is said about: a tenth.
func (l *sharedLedger) read(list []kernel.NetNS, until time.Time) map[uint64]snapshot {
	var names []string
	for _, m := range event.Meanings() {
		names = append(names, m.Name)
	}
	var (
		snapshots = make([]snapshot, len(list))
		next      atomic.Int64
		readers   sync.WaitGroup
	)
	for range min(sharedReaders, len(list)) {
		readers.Go(func() {
			snmp := kernel.NewSNMPReader(names...)
			for i := next.Add(1) - 1; i < int64(len(list)) &&
				time.Now().Before(until); i = next.Add(1) - 1 {
				g, err := readSnapshot(snmp, list[i])
				if err != nil {
					l.log.Debug("read shared counters", "netns", list[i].Inode,
						"error", err)
				}
				snapshots[i] = g
			}
		})
	}
	readers.Wait()
	byInode := make(map[uint64]snapshot, len(list))
	for i, g := range snapshots {
		if g.counters != nil {
			byInode[list[i].Inode] = g
		}
	}
	return byInode
}

func readSnapshot(snmp *kernel.SNMPReader, ns kernel.NetNS) (snapshot, error) {
	counters, pid, err := ReadNetNS(snmp, ns)
	if err != nil {
		return snapshot{}, err
	}
	g := snapshot{counters: counters, pid: pid}
	if pid != 0 {
		g.started = kernel.Started("/proc", pid)
	}
	return g, nil
}

// sameTask reports whether both were read through one task. It keeps the namespace
// that it is in; had it left for another one and come to a third that has the same
// number, the counters would have gone back.
func (g snapshot) sameTask(as snapshot) bool {
	return g.pid != 0 && g.started != 0 && g.pid == as.pid && g.started == as.started
}

// Close takes the closing values, after the last count, and returns the rows of
// the namespaces that are known to be the same as at the opening, or to be younger.
func (l *sharedLedger) Close(pages []ledger.Page) []event.LedgerRow {
	pages = slices.DeleteFunc(slices.Clone(pages), func(p ledger.Page) bool {
		return p.Gone || p.Began != ledger.BeganSince && l.opening[p.NetNS].counters == nil
	})
	closing := l.readAgain(pages, time.Now().Add(sharedClosing))
	var rows []event.LedgerRow
	for i := range pages {
		page := &pages[i]
		before, now := l.opening[page.NetNS], closing[page.NetNS]
		if page.Began == ledger.BeganUnknown && !now.sameTask(before) ||
			now.counters == nil {
			continue
		}
		rows = append(rows, sharedRows(page, before.counters, now.counters)...)
	}
	return rows
}

// readAgain reads the pages' namespaces the way they were read before, and where
// that fails through whoever is in them now.
func (l *sharedLedger) readAgain(pages []ledger.Page, until time.Time) map[uint64]snapshot {
	missing := make(map[uint64]bool, len(pages))
	var known []kernel.NetNS
	for i := range pages {
		missing[pages[i].NetNS] = true
		if ns, ok := l.through[pages[i].NetNS]; ok {
			known = append(known, ns)
		}
	}
	snapshots := l.read(known, until)
	maps.DeleteFunc(missing,
		func(inode uint64, _ bool) bool { return snapshots[inode].counters != nil })
	if len(missing) > 0 {
		list := slices.DeleteFunc(l.list(),
			func(ns kernel.NetNS) bool { return !missing[ns.Inode] })
		maps.Copy(snapshots, l.read(list, until))
	}
	return snapshots
}

// sharedRows are a namespace's rows: of the counters that moved, or that counted
// packets are sure to have moved. One that began since has moved all it has.
func sharedRows(page *ledger.Page, opening, closing kernel.SNMP) []event.LedgerRow {
	since := page.Began == ledger.BeganSince
	if !since && WentBack(closing, opening) {
		return nil // it is another one after all
	}
	moved := make(map[string]uint64)
	for _, m := range event.Meanings() {
		now, have := closing[m.Name]
		before, had := opening[m.Name]
		switch {
		case !m.Shared || !have:
		case since:
			moved[m.Name] = now
		case had:
			moved[m.Name] = now - before
		}
	}
	synspy, filtered := event.ExplainShared(page.Counted,
		moved), event.ExplainShared(page.Filtered, moved)
	var rows []event.LedgerRow
	for _, m := range event.Meanings() {
		by, ok := moved[m.Name]
		if !ok || by == 0 && synspy[m.Name] == 0 {
			continue
		}
		rows = append(rows, event.LedgerRow{NetNS: page.NetNS, Counter: m.Name, Kernel: by,
			Synspy:   synspy[m.Name],
			Filtered: filtered[m.Name], Shared: true})
	}
	return rows
}

// WithRows puts rows below those of the same namespace.
func WithRows(ledger, rows []event.LedgerRow) []event.LedgerRow {
	ledger = append(ledger, rows...)
	slices.SortStableFunc(ledger,
		func(a, b event.LedgerRow) int { return cmp.Compare(a.NetNS, b.NetNS) })
	return ledger
}

// ThroughAtMost is how many of a namespace's processes are tried: some may end
// meanwhile, but hardly all of them.
const ThroughAtMost = 8

// ReadNetNS reads a namespace through one of its processes, which it names, or by
// entering it; then the process is 0. Errors wrap fs.ErrPermission where these
// privileges do not let it.
func ReadNetNS(snmp *kernel.SNMPReader, ns kernel.NetNS) (counters kernel.SNMP, through uint32,
	err error) {
	var errs []error
	for _, pid := range ns.Through[:min(len(ns.Through), ThroughAtMost)] {
		counters, err := snmp.Read("/proc", pid, ns.Inode)
		if err == nil {
			return counters, pid, nil
		}
		errs = append(errs, err)
	}
	for _, name := range ns.Names {
		counters, err := snmp.Enter(kernel.NamedNetNS(name), ns.Inode)
		if err == nil {
			return counters, 0, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("network namespace %q has no process to be read through: %w\n%s", name, err,
				NeedsPowers("to enter it takes", unix.CAP_SYS_ADMIN))
		}
		errs = append(errs, err)
	}
	return nil, 0, errors.Join(errs...)
}

// WentBack reports whether a counter is less than it was: the inode is another
// namespace's now, and nothing can be said about the time between.
func WentBack(now, before kernel.SNMP) bool {
	for _, m := range event.Meanings() {
		if now[m.Name] < before[m.Name] {
			return true
		}
	}
	return false
}
