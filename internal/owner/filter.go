// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
)

// Filter selects listeners by who holds them. Empty fields select all.
type Filter struct {
	PID       uint32
	Comm      string // exact, or a glob of path.Match
	Cgroup    string // a path, or a glob of path.Match; what is below it is in it
	Container string // an ID or the first digits of one; a name, or a glob of it; or what tables show as CONTAINER
	Pod       string // NAMESPACE/NAME, or NAME in any namespace; each may be a glob
}

// shortID is how many digits of a container's ID are needed for it, at least:
// fewer are more likely a name.
const shortID = 8

// Validate returns an error that wraps path.ErrBadPattern for a broken glob.
func (f Filter) Validate() error {
	for _, pattern := range []string{f.Comm, f.Cgroup, f.Container, f.Pod} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("parse glob %q: %w", pattern, err)
		}
	}
	if namespace, name, ok := strings.Cut(f.Pod, "/"); ok && (namespace == "" || name == "" ||
		strings.Contains(name, "/")) {
		return errors.New("want NAMESPACE/NAME")
	}
	return nil
}

// IsGlob reports whether a filter's value may match more than its own text.
func IsGlob(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// ByNames reports whether it takes what a runtime says.
func (f Filter) ByNames() bool { return f.Container != "" || f.Pod != "" }

// Match reports whether some process that holds the socket meets all of the
// filter. Sockets closed a moment ago still match. It is pending where none
// does, but a runtime has not yet said what one of their containers is called.
func (t *Table) Match(socket uint64, f Filter) (matched, pending bool) {
	if f == (Filter{}) {
		return true, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[socket]
	if s == nil {
		return false, false
	}
	if f.Cgroup == "" && !f.ByNames() {
		for _, p := range s.holders {
			if f.Matches(&event.Process{PID: p.pid, Comm: p.comm}) {
				return true, false
			}
		}
		return false, false
	}
	if f.Cgroup != "" {
		f.Cgroup = t.proc.Mounts.Strip(f.Cgroup)
	}
	processes := t.refresh(s).processes
	for i := range processes {
		if f.Matches(&processes[i]) {
			return true, false
		}
	}
	return false, f.ByNames() && len(t.pending(s, nil)) > 0
}

// Matches reports whether the process meets all of the filter. What is not known
// of it does not meet anything.
func (f Filter) Matches(p *event.Process) bool {
	return (f.PID == 0 || f.PID == p.PID) &&
		(f.Comm == "" || matchName(f.Comm, p.Comm)) &&
		(f.Cgroup == "" || p.Cgroup != nil && MatchCgroup(f.Cgroup, p.Cgroup.Path)) &&
		(f.Container == "" || matchContainer(f.Container, p.Container) ||
			matchShown(f.Container, p)) &&
		(f.Pod == "" || matchPod(f.Pod, p.Pod))
}

func matchContainer(pattern string, c *event.Container) bool {
	switch {
	case c == nil:
		return false
	case len(pattern) >= shortID && strings.HasPrefix(c.ID, pattern):
		return true
	default:
		return c.Name != "" && matchName(pattern, c.Name)
	}
}

// matchShown takes what stands in the column CONTAINER where it is no container's own name: a pod,
// or a container of one; or the last part of a cgroup where there is neither. A terminal shortens
// it with an ellipsis.
func matchShown(pattern string, p *event.Process) bool {
	before, after, cut := strings.Cut(pattern, "…")
	for _, shown := range p.Places() {
		if matchName(pattern, shown) || cut && len(shown) >= len(before)+len(after) &&
			strings.HasPrefix(shown, before) && strings.HasSuffix(shown, after) {
			return true
		}
	}
	return false
}

func matchPod(pattern string, p *event.Pod) bool {
	if p == nil || p.Name == "" {
		return false
	}
	namespace, name, ok := strings.Cut(pattern, "/")
	if !ok {
		return matchName(pattern, p.Name)
	}
	return matchName(namespace, p.Namespace) && matchName(name, p.Name)
}

// matchName is exact before it is a glob: a comm may hold brackets.
func matchName(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return pattern == name || ok && err == nil
}

// MatchCgroup reports whether the cgroup, or one above it, is the pattern or is
// matched by it.
func MatchCgroup(pattern, cgroup string) bool {
	for {
		if matchName(pattern, cgroup) {
			return true
		}
		if cgroup == "/" || cgroup == "." || cgroup == "" {
			return false
		}
		cgroup = path.Dir(cgroup)
	}
}

// FindCgroup looks for a cgroup by its path, from the root of its hierarchy or
// as a directory below a mount of cgroupfs. The error is fs.ErrNotExist where
// no hierarchy has it.
func (t *Table) FindCgroup(path string) (event.Cgroup, error) {
	path = t.proc.Mounts.Strip(path)
	for _, wantV2 := range []bool{true, false} {
		for _, m := range t.proc.Mounts {
			if m.V2 != wantV2 {
				continue
			}
			if dir, err := os.Stat(filepath.Join(m.Point, path)); err == nil &&
				dir.IsDir() {
				return event.Cgroup{ID: cgroup.InodeOf(filepath.Join(m.Point,
					path)), Path: path}, nil
			}
		}
	}
	return event.Cgroup{}, fmt.Errorf("find cgroup %s: %w", path, fs.ErrNotExist)
}
