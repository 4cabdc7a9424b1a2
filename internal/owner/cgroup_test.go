// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel/cgroup"
	"github.com/synspy/synspy/internal/owner/containers"
)

func TestFindCgroup(t *testing.T) {
	root := t.TempDir()
	tab := none(t)
	tab.proc.Mounts = cgroup.ParseMounts([]byte("42 35 0:41 / " + root +
		"/unified rw - cgroup2 cgroup2 rw\n"))
	dir := filepath.Join(root, "unified/a/b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a/b", "a/b/", dir} {
		got, err := tab.FindCgroup(path)
		if want := (event.Cgroup{ID: cgroup.InodeOf(dir), Path: "/a/b"}); err != nil ||
			got != want {
			t.Errorf("%s: got %v, %v", path, got, err)
		}
	}
	if _, err := tab.FindCgroup("/a/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestMatchCgroup(t *testing.T) {
	for _, c := range []struct {
		pattern, cgroup string
		want            bool
	}{
		{"/a", "/a", true},
		{"/a", "/a/b/c", true},
		{"/a", "/ab", false},
		{"/a/b", "/a", false},
		{"/", "/a", true},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", true}, // below what matches
		{"/a/*/c", "/a/b/c", true},
		{"/a/*", "/a", false},
		{"/a[", "/a[", true},
		{"/a[", "/b", false},
		{"/x", "/../../x", false},
	} {
		if got := MatchCgroup(c.pattern, c.cgroup); got != c.want {
			t.Errorf("MatchCgroup(%q, %q) = %t", c.pattern, c.cgroup, got)
		}
	}
}

func TestMatch(t *testing.T) {
	tab := none(t)
	tab.Replace([]Holder{
		{Socket: 1, Inode: 1, PID: 100, Comm: "nginx", StartNs: 1e9},
		{Socket: 1, Inode: 1, PID: 101, Comm: "a[0]", StartNs: 1e9},
	})
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{PID: 101}, true},
		{Filter{PID: 102}, false},
		{Filter{Comm: "ngi*"}, true},
		{Filter{Comm: "ngi"}, false},
		{Filter{Comm: "a[0]"}, true},
		{Filter{PID: 101, Comm: "nginx"}, false}, // not the same process
		{Filter{Cgroup: "/"}, false},             // unknown is not everywhere
	} {
		if got, pending := tab.Match(1, c.f); got != c.want || pending {
			t.Errorf("%+v: %t", c.f, got)
		}
	}
	if got, _ := tab.Match(2, Filter{PID: 100}); got {
		t.Error("unknown socket matches")
	}
	if (Filter{Comm: "a["}).Validate() == nil ||
		(Filter{Comm: "a*", Cgroup: "/b"}).Validate() != nil {
		t.Error("Validate")
	}
}

// TestKeyOf: runtimes are asked for a container as the user that it belongs to.
func TestKeyOf(t *testing.T) {
	c := &event.Container{ID: containerID, Runtime: "podman"}
	want := containers.Key{ID: containerID, Runtime: "podman", User: "1000"}
	if got := keyOf("/user.slice/user-1000.slice/session-3.scope/x", c); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := keyOf("/a", nil); got != (containers.Key{}) {
		t.Errorf("no container: %+v", got)
	}
}
