// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHiddenBy(t *testing.T) {
	const mount = "22 27 0:21 / /proc rw,relatime - proc proc rw"
	for mounts, want := range map[string]string{
		mount + "\n":                                             "",
		mount + ",hidepid=2\n":                                   "hidepid=2",
		mount + ",gid=4,hidepid=invisible,x\n":                   "hidepid=invisible",
		mount + ",hidepid=0\n":                                   "",
		mount + ",hidepid=2\n" + mount + "\n":                    "", // what was mounted last is what shows
		mount + "\n" + mount + ",hidepid=1\n":                    "hidepid=1",
		"22 27 0:21 / /other/proc rw - proc proc rw,hidepid=2\n": "",
		"": "", "nonsense - proc\n": "",
	} {
		if got := hiddenBy(mounts); got != want {
			t.Errorf("%q: %q, want %q", mounts, got, want)
		}
	}
}

// TestRefusedFile: what is not refused takes nothing, and what is, something.
func TestRefusedFile(t *testing.T) {
	for err, refused := range map[error]bool{
		unix.EACCES: true, unix.EPERM: true, unix.EMFILE: true, unix.ENFILE: true,
		unix.ENOMEM: true,
		unix.ENOENT: false, unix.ESRCH: false, fs.ErrNotExist: false, nil: false,
	} {
		if by := RefusedFile("syscall", err); len(by) > 0 != refused {
			t.Errorf("%v: takes %q", err, by)
		}
	}
}

func TestHiddenProcess(t *testing.T) {
	if by := HiddenProcess(uint32(os.Getpid())); len(by) == 0 {
		t.Error("a process that lives is not hidden")
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if by := HiddenProcess(uint32(gone.Process.Pid)); len(by) != 0 {
		t.Errorf("one that is gone takes %q", by)
	}
	if Exhausted(errors.New("other")) != "" {
		t.Error("an error of its own is a limit")
	}
}
