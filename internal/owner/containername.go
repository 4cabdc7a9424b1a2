// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"time"

	"github.com/synspy/synspy/internal/kernel/cgroup"
	"github.com/synspy/synspy/internal/owner/containers"
)

// AskRuntimes has containers and pods named by their runtimes. It is to be called
// before anything else, and the names closed after all else.
func (t *Table) AskRuntimes(names *containers.Names) { t.names = names }

// Renamed grows whenever containers have got other names, or may get some: what
// Processes and Match said before may be different now.
func (t *Table) Renamed() uint64 { return t.names.Changes() }

// AwaitsNames reports whether some container is still to be named.
func (t *Table) AwaitsNames() bool { return t.names.Waiting() }

// AwaitNames waits for the runtimes' first word on the containers that hold the
// sockets, but no longer than so long.
func (t *Table) AwaitNames(atMost time.Duration, sockets ...uint64) {
	if t.names == nil || atMost <= 0 {
		return
	}
	var keys []containers.Key
	t.mu.Lock()
	for _, key := range sockets {
		if s := t.sockets[key]; s != nil {
			keys = t.pending(s, keys)
		}
	}
	t.mu.Unlock()
	t.names.Await(keys, atMost)
}

// pending appends the containers that hold the socket and have no name yet, but
// may get one.
func (t *Table) pending(s *socket, keys []containers.Key) []containers.Key {
	if t.names == nil {
		return keys
	}
	for _, p := range s.holders {
		k := t.inspect(s, p)
		if k != nil && k.key.ID != "" && t.names.Pending(k.key) {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// name completes where a process runs by what the runtime says. What the path
// of the cgroup says goes first: it is the kernel's.
func (t *Table) name(k *task) {
	if t.names == nil || k.key.ID == "" {
		return
	}
	a := t.names.Lookup(k.key)
	if a == nil || a == k.named {
		return
	}
	k.named = a
	// New values: records may still have the old ones.
	container, pod := cgroup.ContainerOf(k.cgroup.Path, t.proc.Own)
	container.Name = a.Name
	if container.Runtime == "" {
		container.Runtime = a.Runtime
	}
	if a.Pod != nil {
		named := *a.Pod
		if pod != nil {
			named.UID = pod.UID
		}
		pod = &named
	}
	k.container, k.pod = container, pod
}
