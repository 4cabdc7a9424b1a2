// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGuestPath(t *testing.T) {
	for p, want := range map[string]string{
		"/bin/sh":          "usr/bin/sh",
		"/lib/x/../y.so":   "usr/lib/y.so",
		"/lib64/ld.so":     "usr/lib64/ld.so",
		"/lib":             "lib",
		"/library/x":       "library/x",
		"opt//t":           "opt/t",
		"/usr/bin/../sbin": "usr/sbin",
	} {
		if got := guestPath(p); got != want {
			t.Errorf("%s: got %q, want %q", p, got, want)
		}
	}
}

// TestRootfsUnpacks has cpio(1) judge the archive.
func TestRootfsUnpacks(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("needs cpio (apt-get install cpio)")
	}
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "five"), []byte("12345"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("five", filepath.Join(host, "link")); err != nil {
		t.Fatal(err)
	}
	root := newRootfs()
	delete(root.files, "dev/console") // takes root to unpack
	root.addText("/bin/tool", "first")
	root.addText("/usr/bin/tool", "second")
	if err := root.copy(host, "/opt/deep/dir"); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := root.write(&archive); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "--extract", "--quiet")
	cmd.Dir, cmd.Stdin = dir, &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]string{}
	for _, name := range []string{"bin/tool", "opt/deep/dir/five", "opt/deep/dir/link"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		got[name] = string(text)
	}
	want := map[string]string{"bin/tool": "second", "opt/deep/dir/five": "12345",
		"opt/deep/dir/link": "12345"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	stat, err := os.Stat(filepath.Join(dir, "opt/deep/dir/five"))
	if err != nil || stat.Mode().Perm() != 0o750 {
		t.Errorf("mode: got %v, %v", stat, err)
	}
	if target, _ := os.Readlink(filepath.Join(dir, "opt/deep/dir/link")); target != "five" {
		t.Errorf("link: got %q", target)
	}
}

func TestParseLdd(t *testing.T) {
	got, err := parseLdd("\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/lib/x86_64-linux-gnu/libc.so.6",
		"/lib64/ld-linux-x86-64.so.2"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseLdd("\tlibfoo.so.1 => not found\n"); err == nil {
		t.Error("missing library: got no error")
	}
}
