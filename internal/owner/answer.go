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
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[socket]
	if s == nil || len(s.holders) == 0 || s.unheld(atNs) {
		return nil
	}
	t.refresh(s)
	list := slices.Clone(s.view)
	age(list, s.viewOf, atNs)
	return list
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
		t.refresh(s)
		from := len(list)
		list = append(list, s.view...)
		age(list[from:], s.viewOf, atNs)
	}
	slices.SortStableFunc(list, func(a, b event.Process) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), byRole(a, b))
	})
	merged := list[:0]
	for _, p := range list {
		if last := len(merged) - 1; last >= 0 && merged[last].PID == p.PID {
			m := &merged[last]
			if p.LastAcceptMs != nil && (m.LastAcceptMs == nil || *p.LastAcceptMs < *m.LastAcceptMs) {
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

// unheld tells whether nobody held the socket at the time any more.
func (s *socket) unheld(atNs uint64) bool { return s.missed != 0 && atNs > s.missed }

// refresh makes the socket's view current.
func (t *Table) refresh(s *socket) {
	names := t.names.Changes() // before they are looked up
	if s.viewGen == t.gen && s.viewNames == names {
		return
	}
	s.view, s.viewOf = make([]event.Process, 0, len(s.holders)), make([]*holder, 0, len(s.holders))
	for _, p := range s.holders {
		s.viewOf = append(s.viewOf, p)
	}
	slices.SortFunc(s.viewOf, func(a, b *holder) int {
		return cmp.Or(cmp.Compare(rank(b.role), rank(a.role)), cmp.Compare(a.pid, b.pid))
	})
	for _, p := range s.viewOf {
		about := event.Process{PID: p.pid, Comm: p.comm, Role: p.role}
		if k := t.inspect(s, p); k != nil {
			about.Cgroup, about.Container, about.Pod = k.cgroup, k.container, k.pod
		}
		about.Start = p.start
		s.view = append(s.view, about)
	}
	s.viewGen, s.viewNames = t.gen, names
}

// age fills in how long ago each process last accepted.
func age(list []event.Process, of []*holder, atNs uint64) {
	var ages []uint64 // one allocation for all
	for i, p := range of {
		if p.accepts == nil {
			continue
		}
		last, ok := p.accepts.before(atNs)
		if !ok {
			continue
		}
		if ages == nil {
			ages = make([]uint64, 0, len(of)-i)
		}
		ages = append(ages, (atNs-last)/1_000_000)
		list[i].LastAcceptMs = &ages[len(ages)-1]
	}
}

func byRole(a, b event.Process) int {
	return cmp.Or(cmp.Compare(rank(b.Role), rank(a.Role)), cmp.Compare(a.PID, b.PID))
}
