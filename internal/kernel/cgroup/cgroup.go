// SPDX-License-Identifier: Apache-2.0

// Package cgroup finds the cgroup of a process among its hierarchies, and what container a cgroup's
// path names.
package cgroup

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// V2 is the name used here for the one hierarchy of cgroup v2.
const V2 = ""

// preferred v1 hierarchies, for processes that v2 has in its root: what the
// service manager uses, then what limits a server.
var preferred = []string{"name=systemd", "cpu", "memory", "pids"}

// Membership is a line of /proc/PID/cgroup.
type Membership struct {
	Controllers []string // of a v1 hierarchy; v2 alone for cgroup v2
	path        string   // seen from this process's cgroup namespace: may begin with /..
	Deleted     bool
}

// DeletedMark follows the path of a cgroup that was removed (proc_cgroup_show).
const DeletedMark = " (deleted)"

// Mount is a mount of a cgroup hierarchy.
type Mount struct {
	Options []string // of the superblock: a v1 hierarchy's controllers are among them
	V2      bool
	Root    string // the cgroup at the mount point, seen from our cgroup namespace
	Point   string
}

// Mounts are those of all hierarchies.
type Mounts []Mount

// ParseMemberships reads /proc/PID/cgroup, lines of "ID:CONTROLLERS:PATH". A
// path may hold colons, but no newline.
func ParseMemberships(b []byte) []Membership {
	var list []Membership
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		m := Membership{Controllers: strings.Split(f[1], ",")}
		m.path, m.Deleted = strings.CutSuffix(f[2], DeletedMark)
		list = append(list, m)
	}
	return list
}

// ParseMounts reads /proc/self/mountinfo (proc_pid_mountinfo(5)).
func ParseMounts(b []byte) Mounts {
	var list Mounts
	for line := range strings.Lines(string(b)) {
		head, tail, ok := strings.Cut(line, " - ")
		f, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(t) < 3 || t[0] != "cgroup" && t[0] != "cgroup2" {
			continue
		}
		list = append(list, Mount{
			Options: strings.Split(t[2], ","),
			V2:      t[0] == "cgroup2",
			Root:    unescape(f[3]),
			Point:   unescape(f[4]),
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

// Choose picks the cgroup that says most about a process: one that names a
// container, for in hybrid mode runtimes make v1 cgroups only and leave the
// process in its runtime's v2 one; then one below the root; then the v2 one.
func (mounts Mounts) Choose(list []Membership) *event.Cgroup {
	var best *Membership
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
	path, dir := mounts.Locate(*best)
	cg := &event.Cgroup{Path: path}
	if dir != "" && !best.Deleted {
		cg.ID = InodeOf(dir)
	}
	return cg
}

// living undoes what parseMemberships took for the kernel's mark of a removed cgroup,
// where it is part of the name: anybody who may make cgroups may call one "x (deleted)".
func (mounts Mounts) living(m Membership) Membership {
	if !m.Deleted {
		return m
	}
	whole := Membership{Controllers: m.Controllers, path: m.path + DeletedMark}
	if _, dir := mounts.Locate(whole); dir == "" || InodeOf(dir) == 0 {
		return m
	}
	return whole
}

func (mounts Mounts) rank(m Membership) int {
	r := 0
	if m.Controllers[0] == V2 {
		r = len(preferred) + 1
	} else if i := slices.IndexFunc(preferred, func(name string) bool {
		return slices.Contains(m.Controllers, name)
	}); i >= 0 {
		r = len(preferred) - i
	}
	path, _ := mounts.Locate(m)
	if path != "/" {
		r += 100
	}
	if container, _ := ContainerOf(path, nil); container != nil {
		r += 1000
	}
	return r
}

// Locate returns the membership's path from the highest cgroup that a mount
// shows, and its directory, empty where no mount shows it.
func (mounts Mounts) Locate(m Membership) (path, dir string) {
	for _, mnt := range mounts {
		if mnt.V2 != (m.Controllers[0] == V2) || !mnt.V2 && !slices.Contains(mnt.Options,
			m.Controllers[0]) {
			continue
		}
		rest, ok := below(mnt.Root, m.path)
		if !ok {
			continue
		}
		// A mount made outside our cgroup namespace, such as the host's in a
		// container: what it shows is the whole path.
		if strings.HasPrefix(mnt.Root, "/..") {
			return "/" + rest, filepath.Join(mnt.Point, rest)
		}
		return m.path, filepath.Join(mnt.Point, rest)
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

// InodeOf is a cgroup's number: its directory's. 0: there is none.
func InodeOf(dir string) uint64 {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0
	}
	return st.Ino
}

// Strip turns a path that begins with a mount point of cgroupfs into one from
// the root of the hierarchy, and cleans it.
func (mounts Mounts) Strip(path string) string {
	path = filepath.Clean("/" + path)
	longest := ""
	for _, m := range mounts {
		if _, ok := below(m.Point, path); ok && len(m.Point) > len(longest) {
			longest = m.Point
		}
	}
	return filepath.Clean("/" + strings.TrimPrefix(path, longest))
}
