package owner

import (
	"fmt"
	"path"
	"strings"

	"github.com/synspy/synspy/internal/event"
)

// Filter selects listeners by who holds them. Empty fields select all.
type Filter struct {
	PID    uint32
	Comm   string // exact, or a glob of path.Match
	Cgroup string // a path, or a glob of path.Match; what is below it is in it
}

// Validate returns an error that wraps path.ErrBadPattern for a broken glob.
func (f Filter) Validate() error {
	for _, pattern := range []string{f.Comm, f.Cgroup} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("parse glob %q: %w", pattern, err)
		}
	}
	return nil
}

// IsGlob tells whether a filter's value may match more than its own text.
func IsGlob(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// Match tells whether some process that holds the socket meets all of the
// filter. Sockets closed a moment ago still match.
func (t *Table) Match(socket uint64, f Filter) bool {
	if f == (Filter{}) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[socket]
	if s == nil {
		return false
	}
	if f.Cgroup != "" {
		f.Cgroup = t.proc.mounts.strip(f.Cgroup)
		t.refresh(s)
		for i := range s.view {
			if matches(&s.view[i], f) {
				return true
			}
		}
		return false
	}
	for _, p := range s.holders {
		if matches(&event.Process{PID: p.pid, Comm: p.comm}, f) {
			return true
		}
	}
	return false
}

func matches(p *event.Process, f Filter) bool {
	if f.PID != 0 && f.PID != p.PID {
		return false
	}
	if f.Comm != "" && !matchName(f.Comm, p.Comm) {
		return false
	}
	return f.Cgroup == "" || p.Cgroup != nil && MatchCgroup(f.Cgroup, p.Cgroup.Path)
}

// matchName is exact before it is a glob: a comm may hold brackets.
func matchName(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return pattern == name || ok && err == nil
}

// MatchCgroup tells whether the cgroup, or one above it, is the pattern or is
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
