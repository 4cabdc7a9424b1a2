// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/kernel/proc"
	"github.com/synspy/synspy/internal/owner/containers"
)

// Bounds of the table. A process may open listeners without end; we may not.
const (
	maxHolders = 1 << 17         // (socket, process) pairs
	maxGraves  = 1024            // closed sockets still remembered
	graveTime  = 5 * time.Second // how long
)

// Holder is a process that has a listening socket open, as the kernel's
// task_file iterator or [ScanProc] saw it.
type Holder struct {
	Socket  uint64 // kernel address, [event.Listener.Key]; 0: find it by Inode
	Inode   uint64 // sockfs inode, 0 unknown
	PID     uint32 // thread group
	Comm    string // of the group's leader; any bytes
	StartNs uint64 // the leader's task->start_boottime, 0 unknown
}

// Table knows who holds which listening socket. All methods may be called from
// any goroutine.
type Table struct {
	log   *slog.Logger
	proc  *proc.FS
	now   func() time.Time
	names *containers.Names // nil: nobody is asked

	mu      sync.Mutex
	gen     uint32 // runs of Replace, from 1: what an earlier one made is stale
	sockets map[uint64]*socket
	last    *process // the last one that Replace met
	tasks   map[taskID]*task
	graves  []grave // in order of closing
	holders int     // in all sockets
	full    bool    // maxHolders was met and said
}

// socket has room for its first holder: most have one, and a machine may have many of them.
type socket struct {
	inode   uint64
	closed  int64     // by the table's clock, ns since 1970; 0 while open
	missed  uint64    // closed because a Replace did not list it: when, CLOCK_MONOTONIC, ns
	seen    uint32    // last Replace that listed it
	fresh   bool      // opened since the last Replace
	holders []*holder // by process

	view *view // nil until it was asked for

	only  [1]*holder
	first holder
}

// view is what Processes answers, but for the ages of the accepts. It is valid while
// gen is the table's and names that of the names.
type view struct {
	processes []event.Process
	of        []*holder
	gen       uint32
	names     uint64
}

// holder is a process of one socket.
type holder struct {
	*process
	seen    uint32 // last Replace that listed it
	rank    uint8  // of its role
	accepts *accepts
}

// process is shared by the sockets that one Replace met it with in a row.
type process struct {
	pid   uint32
	tried uint32 // last Replace after which it was tried to recognise it
	comm  string
	start uint64 // clock ticks since boot, 0 unknown
	since uint64 // CLOCK_BOOTTIME when it was first named, ns
	task  *task  // nil until it was recognised
}

type grave struct {
	key uint64
	of  *socket
	at  int64 // ns since 1970
}

// New returns an empty table that reads processes below procRoot, which is
// "/proc" outside tests.
func New(procRoot string, log *slog.Logger) *Table {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Table{
		log:     log,
		proc:    proc.New(procRoot, log),
		now:     time.Now,
		gen:     1,
		sockets: make(map[uint64]*socket),
		tasks:   make(map[taskID]*task),
	}
}

// Replace takes the full truth from one run of the iterator: who is not in it
// no longer holds the socket. Roles and accepts are kept for processes known
// by the same PID and start time.
//
// A socket that was opened since the last Replace and is wholly absent from
// this one survives it once: its listen() may have come after the iterator had
// passed. Any other that is absent is taken for closed, and remembered as such:
// records of what it dropped while it was open may still be under way.
func (t *Table) Replace(holders []Holder) {
	_ = t.ReplaceBy(func(enter func(Holder)) error { // never fails
		for _, h := range holders {
			enter(h)
		}
		return nil
	})
}

// ReplaceBy is Replace of holders that list hands over one by one. If it fails, who was not handed
// over is where it was before.
func (t *Table) ReplaceBy(list func(enter func(Holder)) error) error {
	t.mu.Lock()
	t.gen++
	t.last = nil
	t.mu.Unlock()
	var byInode map[uint64]uint64
	now := bootNs()
	err := list(func(h Holder) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if h.Socket == 0 {
			if byInode == nil {
				byInode = t.inodes()
			}
			h.Socket = byInode[h.Inode]
		}
		if h.Socket != 0 {
			t.take(h, now)
		}
	})
	if err == nil {
		t.endReplace()
	}
	return err
}

// endReplace ends the holders that were not listed.
func (t *Table) endReplace() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bury()
	for key, s := range t.sockets {
		switch {
		case s.seen == t.gen:
			s.fresh = false
			t.holders -= len(s.holders)
			s.holders = slices.DeleteFunc(s.holders,
				func(h *holder) bool { return h.seen != t.gen })
			t.holders += len(s.holders)
		case s.closed != 0:
			// bury decides.
		case s.fresh:
			s.fresh = false
		default:
			s.missed = kernel.Monotonic()
			t.close(key, s)
		}
	}
	t.learn()
}

// inodes maps the known sockets' inodes to their keys.
func (t *Table) inodes() map[uint64]uint64 {
	m := make(map[uint64]uint64, len(t.sockets))
	for key, s := range t.sockets {
		if s.inode != 0 && s.closed == 0 {
			m[s.inode] = key
		}
	}
	return m
}

// take enters a holder that was seen at the time given, by CLOCK_BOOTTIME.
func (t *Table) take(h Holder, now uint64) {
	s := t.sockets[h.Socket]
	switch {
	case s == nil, s.inode != 0 && h.Inode != 0 && s.inode != h.Inode:
		// The slab hands out freed addresses again; the inode tells.
		s = t.create(h.Socket, h.Inode)
	case s.missed != 0:
		s.closed, s.missed = 0, 0
	case s.closed != 0:
		return // the iterator saw it before it was closed
	}
	if s.inode == 0 {
		s.inode = h.Inode
	}
	s.seen = t.gen
	p := s.holder(h.PID)
	start := t.proc.Ticks(h.StartNs)
	if p != nil && !p.is(start) {
		s.holders = slices.DeleteFunc(s.holders,
			func(other *holder) bool { return other == p })
		t.holders--
		p = nil
	}
	if p == nil {
		of := t.last
		if of == nil || of.pid != h.PID || of.start != start || start == 0 {
			of = &process{pid: h.PID, comm: h.Comm, start: start, since: now}
			t.last = of
		}
		if p = t.add(s, of); p == nil {
			return
		}
	}
	p.seen = t.gen
	if start != 0 {
		p.start = start
	}
	if h.Comm != "" {
		p.comm = h.Comm
	}
}

// is reports whether the process that started at the given tick is this one. One
// that was only named by an event cannot have started after it.
func (p *holder) is(start uint64) bool {
	switch {
	case start == 0:
		return true
	case p.start == 0:
		return start*proc.NsPerTick <= p.since
	default:
		return start == p.start
	}
}

// Opened records that pid called listen() on the socket.
func (t *Table) Opened(key, inode uint64, pid uint32, comm string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bury()
	s := t.sockets[key]
	if s == nil || s.inode != inode || inode == 0 {
		s = t.create(key, inode)
	}
	s.closed, s.missed, s.fresh = 0, 0, true
	p := s.holder(pid)
	if p == nil {
		if p = t.add(s, &process{pid: pid, comm: comm, since: bootNs()}); p == nil {
			return
		}
		t.inspect(s, p) // while it is sure to live
	}
	s.promote(p, event.RoleListener)
}

// Accepted records that a process accepted connections from the socket, at the
// given CLOCK_MONOTONIC times in nanoseconds, ascending; without any, the time is
// unknown. The process is told by its leader's task->start_boottime as well as by
// its number: one that is not a holder as far as is known is left out, whether it
// gave the socket away, ended, or has another's number.
func (t *Table) Accepted(key uint64, pid uint32, startNs uint64, at ...uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[key]
	if s == nil {
		return
	}
	p, start := s.holder(pid), t.proc.Ticks(startNs)
	if p == nil || !p.is(start) {
		return
	}
	s.promote(p, event.RoleAcceptor)
	for _, when := range at {
		if p.accepts == nil {
			p.accepts = new(accepts)
		}
		p.accepts.add(when)
	}
}

// Holders lists the processes that hold the socket, by number.
func (t *Table) Holders(key uint64) []uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[key]
	if s == nil {
		return nil
	}
	pids := make([]uint32, len(s.holders))
	for i, p := range s.holders {
		pids[i] = p.pid
	}
	return pids
}

// Closed records that the socket listens no more. It is remembered for a few
// seconds, because the records of the handshakes it took with it come later.
func (t *Table) Closed(key uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bury()
	s := t.sockets[key]
	if s == nil {
		return
	}
	s.missed = 0
	t.close(key, s)
}

func (t *Table) close(key uint64, s *socket) {
	if s.closed != 0 {
		return
	}
	s.closed = t.now().UnixNano()
	t.graves = append(t.graves, grave{key, s, s.closed})
}

// bury forgets sockets that were closed a while ago, and the oldest ones where
// many were closed at once.
func (t *Table) bury() {
	end := t.now().Add(-graveTime).UnixNano()
	n := 0
	for _, g := range t.graves {
		if len(t.graves)-n <= maxGraves && g.at > end {
			break
		}
		n++
		// It may have been opened again, or its address may be another's.
		if t.sockets[g.key] == g.of && g.of.closed == g.at {
			t.remove(g.key)
		}
	}
	t.graves = slices.Delete(t.graves, 0, n)
}

func (t *Table) create(key, inode uint64) *socket {
	t.remove(key)
	s := &socket{inode: inode}
	t.sockets[key] = s
	return s
}

func (t *Table) remove(key uint64) {
	if s := t.sockets[key]; s != nil {
		t.holders -= len(s.holders)
		delete(t.sockets, key)
	}
}

// add enters a holder, or returns nil where the table is full.
func (t *Table) add(s *socket, of *process) *holder {
	if t.holders >= maxHolders {
		if !t.full {
			t.full = true
			t.log.Warn("too many processes hold listeners: the owners of some stay unknown", "limit", maxHolders)
		}
		return nil
	}
	p := &s.first
	if p.process != nil { // had, or has, another
		p = new(holder)
	}
	*p = holder{process: of, rank: rank(event.RoleHolder)}
	if s.holders == nil {
		s.holders = s.only[:0]
	}
	at, _ := s.find(of.pid)
	s.holders = slices.Insert(s.holders, at, p)
	s.view = nil
	t.holders++
	return p
}

// find is where the process is among the holders, or would be.
func (s *socket) find(pid uint32) (int, bool) {
	return slices.BinarySearchFunc(s.holders, pid,
		func(p *holder, pid uint32) int { return cmp.Compare(p.pid, pid) })
}

// holder is that process's, nil if it is none.
func (s *socket) holder(pid uint32) *holder {
	if at, ok := s.find(pid); ok {
		return s.holders[at]
	}
	return nil
}

func (s *socket) promote(p *holder, role event.Role) {
	if rank := rank(role); rank > p.rank {
		p.rank = rank
		s.view = nil
	}
}

// ranked are the roles, strongest last.
var ranked = [...]event.Role{"", event.RoleHolder, event.RoleListener, event.RoleAcceptor}

func rank(r event.Role) uint8 { return uint8(max(slices.Index(ranked[:], r), 0)) }

func (p *holder) role() event.Role { return ranked[p.rank] }

// bootNs is the time that task->start_boottime is measured in.
func bootNs() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}
