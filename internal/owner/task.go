// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"maps"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
	"github.com/synspy/synspy/internal/kernel/proc"
	"github.com/synspy/synspy/internal/owner/containers"
)

// taskID names a process over the whole life of the machine.
type taskID struct {
	pid   uint32
	start uint64 // clock ticks since boot
}

// task is where a process runs. All sockets that it holds share it.
type task struct {
	gen       uint32 // when it was read
	cgroup    *event.Cgroup
	container *event.Container
	pod       *event.Pod

	used  bool               // by a holder, while forget looks
	key   containers.Key     // of the container, for its runtime
	named *containers.Answer // that container and pod have in them
}

// inspect returns where the process runs, read again once after each Replace,
// or nil where it cannot be recognised. A process that is gone is where it was
// last seen: it was that process, and no other, that held the socket.
func (t *Table) inspect(s *socket, p *holder) *task {
	if p.start == 0 {
		if p.tried == t.gen {
			return nil
		}
		p.tried = t.gen
		if !t.recognise(s, p) {
			return nil
		}
	}
	id := taskID{p.pid, p.start}
	k := p.task
	if k == nil {
		k = t.tasks[id]
	}
	if k == nil {
		if len(t.tasks) > 2*t.holders+maxGraves {
			t.forget() // Replace does too, but may not be called for long
		}
		k = new(task)
		t.tasks[id] = k
	}
	p.task = k
	if k.gen != t.gen {
		k.gen = t.gen
		t.place(k, p)
	}
	t.name(k)
	return k
}

// place reads where the process runs.
func (t *Table) place(k *task, p *holder) {
	cg, err := t.proc.CgroupOf(p.pid, p.start)
	if err != nil {
		t.log.Debug("reading the cgroup of a listener's owner", "pid", p.pid, "err", err)
		return
	}
	if cg != nil && (k.cgroup == nil || *k.cgroup != *cg) {
		k.cgroup = cg
		k.container, k.pod = cgroup.ContainerOf(cg.Path, t.proc.Own)
		k.key, k.named = keyOf(cg.Path, k.container), nil
	}
}

// recognise finds the start time of a process that is known only by the PID an
// event named. It must still be called the same, or hold the very socket; a
// thread's own name is why the first may fail.
func (t *Table) recognise(s *socket, p *holder) bool {
	st, err := t.proc.Stat(p.pid)
	if err != nil {
		return false
	}
	if st.Start*proc.NsPerTick > p.since {
		return false // younger than the event
	}
	if st.Comm != p.comm && (s.inode == 0 || !t.proc.Holds(p.pid, s.inode)) {
		return false
	}
	p.start = st.Start
	return true
}

// learn reads processes that were never read before: by the time a listener
// that dies with its process is asked about, it is too late.
func (t *Table) learn() {
	for _, s := range t.sockets {
		for _, p := range s.holders {
			if p.task == nil {
				t.inspect(s, p)
			}
		}
	}
	t.forget()
}

// forget drops the tasks that hold nothing any more.
func (t *Table) forget() {
	for _, s := range t.sockets {
		for _, p := range s.holders {
			if p.task != nil {
				p.task.used = true
			}
		}
	}
	maps.DeleteFunc(t.tasks, func(_ taskID, k *task) bool {
		unused := !k.used
		k.used = false
		return unused
	})
}

// keyOf says whom to ask about a container.
func keyOf(path string, c *event.Container) containers.Key {
	if c == nil {
		return containers.Key{}
	}
	return containers.Key{ID: c.ID, Runtime: c.Runtime, User: cgroup.UserOf(path)}
}
