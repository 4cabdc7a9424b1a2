// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLiveThread: a process whose first thread has ended is read through another one.
func TestLiveThread(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	write("stat", "7 (a) Z b) S 1 7")
	if got := LiveThread(dir); got != "" {
		t.Errorf("a process that lives: %q", got)
	}
	write("stat", "7 (ab) Z 1 7")
	write("task/7/stat", "7 (ab) Z 1 7")
	write("task/8/stat", "8 (ab) X 1 7")
	write("task/9/stat", "9 (ab) S 1 7")
	if got := LiveThread(dir); got != "task/9/" {
		t.Errorf("a first thread that ended: %q", got)
	}
	write("task/9/stat", "9 (ab) Z 1 7")
	if got := LiveThread(dir); got != "" {
		t.Errorf("all have ended: %q", got)
	}
}
