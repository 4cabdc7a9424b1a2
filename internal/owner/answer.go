// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"cmp"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// Processes lists who holds the socket: one entry and one role per process,
// the strongest role first, then by PID. The ages of the last accepts are
// taken at atNs, a CLOCK_MONOTONIC time in nanoseconds.
//
// The slice is the caller's; what its pointers lead to is shared and must not
// be written.
func (t *Table) Processes(socket, atNs uint64) []event.Process {
	var room Answer
	return t.Ask(&room, socket, atNs)
}

// Answer is room for what Ask answers, to be used again and again.
type Answer struct {
	processes []event.Process
	ages      []uint64
}

// Ask is Processes in the room given: what it returned before is overwritten, with the ages of the
// last accepts.
func (t *Table) Ask(room *Answer, socket, atNs uint64) []event.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[socket]
	if s == nil || len(s.holders) == 0 || s.unheld(atNs) {
		return nil
	}
	of := s.holders
	room.processes = room.processes[:0]
	if len(of) == 1 { // nothing to put in order, nor to keep for the next time
		room.processes = append(room.processes, t.about(s, of[0]))
	} else {
		v := t.refresh(s)
		room.processes, of = append(room.processes, v.processes...), v.of
	}
	room.ages = age(room.processes, of, atNs, room.ages[:0])
	return room.processes
}

// ProcessesOfGroup is the union of Processes over the members of a
// SO_REUSEPORT group, for a drop whose member is unknown. A process that holds
// several members has its strongest role and its latest accept.
func (t *Table) ProcessesOfGroup(sockets []uint64, atNs uint64) []event.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, key := range sockets {
		if s := t.sockets[key]; s != nil && !s.unheld(atNs) {
			n += len(s.holders)
		}
	}
	if n == 0 {
		return nil
	}
	list := make([]event.Process, 0, n)
	for _, key := range sockets {
		s := t.sockets[key]
		if s == nil || s.unheld(atNs) {
			continue
		}
		v := t.refresh(s)
		from := len(list)
		list = append(list, v.processes...)
		age(list[from:], v.of, atNs, nil)
	}
	slices.SortStableFunc(list, func(a, b event.Process) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), byRole(a, b))
	})
	merged := list[:0]
	for _, p := range list {
		if last := len(merged) - 1; last >= 0 && merged[last].PID == p.PID {
			m := &merged[last]
			if p.LastAcceptMs != nil && (m.LastAcceptMs == nil ||
				*p.LastAcceptMs < *m.LastAcceptMs) {
				m.LastAcceptMs = p.LastAcceptMs
			}
			continue
		}
		merged = append(merged, p)
	}
	slices.SortFunc(merged, byRole)
	return merged
}

// Top returns the cgroup, container and pod of the process with the highest
// role; of the first one, among equals, whose cgroup is known.
func Top(processes []event.Process) (*event.Cgroup, *event.Container, *event.Pod) {
	var top *event.Process
	for i := range processes {
		p := &processes[i]
		if top == nil || rank(p.Role) > rank(top.Role) ||
			p.Role == top.Role && top.Cgroup == nil && p.Cgroup != nil {
			top = p
		}
	}
	if top == nil {
		return nil, nil, nil
	}
	return top.Cgroup, top.Container, top.Pod
}

// unheld reports whether nobody held the socket at the time any more.
func (s *socket) unheld(atNs uint64) bool { return s.missed != 0 && atNs > s.missed }

// refresh makes the socket's view current, and returns it.
func (t *Table) refresh(s *socket) *view {
	names := t.names.Changes() // before they are looked up
	if v := s.view; v != nil && v.gen == t.gen && v.names == names {
		return v
	}
	v := &view{processes: make([]event.Process, 0, len(s.holders)), of: slices.Clone(s.holders),
		gen: t.gen, names: names}
	slices.SortFunc(v.of, func(a, b *holder) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.pid, b.pid))
	})
	for _, p := range v.of {
		v.processes = append(v.processes, t.about(s, p))
	}
	s.view = v
	return v
}

// about is what is told of a holder, but for its accepts.
func (t *Table) about(s *socket, p *holder) event.Process {
	k := t.inspect(s, p)
	about := event.Process{PID: p.pid, Comm: p.comm, Role: p.role(), Start: p.start}
	if k != nil {
		about.Cgroup, about.Container, about.Pod = k.cgroup, k.container, k.pod
	}
	return about
}

// age fills in how long ago each process last accepted, and keeps the ages in the slice given.
func age(list []event.Process, of []*holder, atNs uint64, ages []uint64) []uint64 {
	for i, p := range of {
		if p.accepts == nil {
			continue
		}
		last, ok := p.accepts.before(atNs)
		if !ok {
			continue
		}
		if cap(ages) < len(of) {
			ages = make([]uint64, 0, len(of)) // all pointers go to one array
		}
		ages = append(ages, (atNs-last)/1_000_000)
		list[i].LastAcceptMs = &ages[len(ages)-1]
	}
	return ages
}

func byRole(a, b event.Process) int {
	return cmp.Or(cmp.Compare(rank(b.Role), rank(a.Role)), cmp.Compare(a.PID, b.PID))
}
