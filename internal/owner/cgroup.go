// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/synspy/synspy/internal/event"
	"golang.org/x/sys/unix"
)

// v2 is the name used here for the one hierarchy of cgroup v2.
const v2 = ""

// preferred v1 hierarchies, for processes that v2 has in its root: what the
// service manager uses, then what limits a server.
var preferred = []string{"name=systemd", "cpu", "memory", "pids"}

// membership is a line of /proc/PID/cgroup.
type membership struct {
	controllers []string // of a v1 hierarchy; v2 alone for cgroup v2
	path        string   // seen from this process's cgroup namespace: may begin with /..
	deleted     bool
}

// deletedMark follows the path of a cgroup that was removed (proc_cgroup_show).
const deletedMark = " (deleted)"

// cgroupMount is a mount of a cgroup hierarchy.
type cgroupMount struct {
	options []string // of the superblock: a v1 hierarchy's controllers are among them
	v2      bool
	root    string // the cgroup at the mount point, seen from our cgroup namespace
	point   string
}

type cgroupMounts []cgroupMount

// parseMemberships reads /proc/PID/cgroup, lines of "ID:CONTROLLERS:PATH". A
// path may hold colons, but no newline.
func parseMemberships(b []byte) []membership {
	var list []membership
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		m := membership{controllers: strings.Split(f[1], ",")}
		m.path, m.deleted = strings.CutSuffix(f[2], deletedMark)
		list = append(list, m)
	}
	return list
}

// parseMounts reads /proc/self/mountinfo (proc_pid_mountinfo(5)).
func parseMounts(b []byte) cgroupMounts {
	var list cgroupMounts
	for line := range strings.Lines(string(b)) {
		head, tail, ok := strings.Cut(line, " - ")
		f, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(t) < 3 || t[0] != "cgroup" && t[0] != "cgroup2" {
			continue
		}
		list = append(list, cgroupMount{
			options: strings.Split(t[2], ","),
			v2:      t[0] == "cgroup2",
			root:    unescape(f[3]),
			point:   unescape(f[4]),
		})
	}
	return list
}

// unescape undoes the octal escapes of mountinfo: space, tab, newline, #, \.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+4 > len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
			b.WriteByte(byte(c))
			s = s[i+4:]
		} else {
			b.WriteByte('\\')
			s = s[i+1:]
		}
	}
}

// choose picks the cgroup that says most about a process: one that names a
// container, for in hybrid mode runtimes make v1 cgroups only and leave the
// process in its runtime's v2 one; then one below the root; then the v2 one.
func (mounts cgroupMounts) choose(list []membership) *event.Cgroup {
	var best *membership
	bestRank := -1
	for i, m := range list {
		m = mounts.living(m)
		list[i] = m
		if r := mounts.rank(m); r > bestRank {
			best, bestRank = &list[i], r
		}
	}
	if best == nil {
		return nil
	}
	path, dir := mounts.locate(*best)
	cg := &event.Cgroup{Path: path}
	if dir != "" && !best.deleted {
		cg.ID = inodeOf(dir)
	}
	return cg
}

// living undoes what parseMemberships took for the kernel's mark of a removed cgroup,
// where it is part of the name: anybody who may make cgroups may call one "x (deleted)".
func (mounts cgroupMounts) living(m membership) membership {
	if !m.deleted {
		return m
	}
	whole := membership{controllers: m.controllers, path: m.path + deletedMark}
	if _, dir := mounts.locate(whole); dir == "" || inodeOf(dir) == 0 {
		return m
	}
	return whole
}

func (mounts cgroupMounts) rank(m membership) int {
	r := 0
	if m.controllers[0] == v2 {
		r = len(preferred) + 1
	} else if i := slices.IndexFunc(preferred, func(name string) bool {
		return slices.Contains(m.controllers, name)
	}); i >= 0 {
		r = len(preferred) - i
	}
	path, _ := mounts.locate(m)
	if path != "/" {
		r += 100
	}
	if container, _ := containerOf(path, nil); container != nil {
		r += 1000
	}
	return r
}

// locate returns the membership's path from the highest cgroup that a mount
// shows, and its directory, empty where no mount shows it.
func (mounts cgroupMounts) locate(m membership) (path, dir string) {
	for _, mnt := range mounts {
		if mnt.v2 != (m.controllers[0] == v2) || !mnt.v2 && !slices.Contains(mnt.options, m.controllers[0]) {
			continue
		}
		rest, ok := below(mnt.root, m.path)
		if !ok {
			continue
		}
		// A mount made outside our cgroup namespace, such as the host's in a
		// container: what it shows is the whole path.
		if strings.HasPrefix(mnt.root, "/..") {
			return "/" + rest, filepath.Join(mnt.point, rest)
		}
		return m.path, filepath.Join(mnt.point, rest)
	}
	return m.path, ""
}

// below returns path relative to root. Both are as the kernel writes them for
// our cgroup namespace: "/a" inside it, "/../.." and "/../../a" outside.
func below(root, path string) (string, bool) {
	rest := path
	if root != "/" {
		var ok bool
		if rest, ok = strings.CutPrefix(path, root); !ok || rest != "" && rest[0] != '/' {
			return "", false
		}
	}
	rest = strings.TrimPrefix(rest, "/")
	if rest == ".." || strings.HasPrefix(rest, "../") {
		return "", false // above what the mount shows
	}
	return rest, true
}

func inodeOf(dir string) uint64 {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0
	}
	return st.Ino
}

// FindCgroup looks for a cgroup by its path, from the root of its hierarchy or
// as a directory below a mount of cgroupfs. The error is fs.ErrNotExist where
// no hierarchy has it.
func (t *Table) FindCgroup(path string) (event.Cgroup, error) {
	path = t.proc.mounts.strip(path)
	for _, wantV2 := range []bool{true, false} {
		for _, m := range t.proc.mounts {
			if m.v2 != wantV2 {
				continue
			}
			if dir, err := os.Stat(filepath.Join(m.point, path)); err == nil && dir.IsDir() {
				return event.Cgroup{ID: inodeOf(filepath.Join(m.point, path)), Path: path}, nil
			}
		}
	}
	return event.Cgroup{}, fmt.Errorf("find cgroup %s: %w", path, fs.ErrNotExist)
}

// strip turns a path that begins with a mount point of cgroupfs into one from
// the root of the hierarchy, and cleans it.
func (mounts cgroupMounts) strip(path string) string {
	path = filepath.Clean("/" + path)
	longest := ""
	for _, m := range mounts {
		if _, ok := below(m.point, path); ok && len(m.point) > len(longest) {
			longest = m.point
		}
	}
	return filepath.Clean("/" + strings.TrimPrefix(path, longest))
}
