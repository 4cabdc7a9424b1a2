// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel/cgroup"
)

func TestParseStat(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21\n"
	for _, comm := range []string{"nginx", "a) S 1 (b", "\n\x1b[31m\xff", ""} {
		got, err := ParseStat([]byte("7 (" + comm + ")" + tail))
		if err != nil || got != (Status{comm, 4242}) {
			t.Errorf("%q: %+v, %v", comm, got, err)
		}
	}
	for _, bad := range []string{"", "7 nginx S", "7 (nginx) S 1", "7 )(" + tail} {
		if _, err := ParseStat([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestBootOffset(t *testing.T) {
	if got := bootOffset([]byte("monotonic           0         0\nboottime        -10         5\n")); got != -10e9+5 {
		t.Errorf("got %d", got)
	}
	p := FS{bootNs: 3e9}
	if got := p.Ticks(p.Nanoseconds(777)); got != 777 {
		t.Errorf("there and back: %d", got)
	}
}

// TestReadAt: a file of any length is read, up to a bound.
func TestReadAt(t *testing.T) {
	dir := t.TempDir()
	for _, length := range []int{0, 1, 1024, 1025, 100_000, MaxText, MaxText + 5000} {
		path := filepath.Join(dir, "file")
		text := bytes.Repeat([]byte("0123456789"), length/10+1)[:length]
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadAt(unix.AT_FDCWD, path)
		if err != nil || !bytes.Equal(got, text[:min(length, MaxText)]) {
			t.Errorf("%d bytes are read as %d, error %v", length, len(got), err)
		}
	}
	if _, err := ReadAt(unix.AT_FDCWD, dir); err == nil {
		t.Error("a directory is read")
	}
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte("0::/a\n1:name=systemd:/b\n"),
		[]byte("42 35 0:41 / /cg rw - cgroup2 cgroup2 rw\n"))
	f.Add([]byte("0::/../../a\n"), []byte("50 49 0:26 /../.. /host\\04 ro - cgroup2 c rw\n"))
	f.Fuzz(func(t *testing.T, membership, mounts []byte) {
		cgroup.ParseMounts(mounts).Choose(cgroup.ParseMemberships(membership))
		_, _ = ParseStat(membership)
		bootOffset(mounts)
	})
}
