// SPDX-License-Identifier: Apache-2.0

package session

import (
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

func TestRefusals(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	absent := &fs.PathError{Op: "open", Path: "/proc/1", Err: unix.ENOENT}
	r := make(Refusals)
	r.Files(1,
		map[string]error{"syscall": &fs.PathError{Op: "read", Path: "syscall",
			Err: unix.EPERM}, "fd": unix.EACCES})
	r.Files(2, map[string]error{"fd": unix.EMFILE})
	r.Process(3, &fs.PathError{Op: "open", Path: "/proc/3", Err: unix.EPERM})
	r.Process(uint32(os.Getpid()), absent) // it lives
	r.Process(uint32(gone.Process.Pid), absent)

	needs := func(pids ...uint32) (all []evidence.Need) {
		var of []event.Process
		for _, pid := range pids {
			of = append(of, event.Process{PID: pid})
		}
		for _, g := range r.Of(of) {
			if len(g.By) == 0 || g.Why == "" {
				t.Errorf("refused by nobody: %+v", g)
			}
			all = append(all, g.Need)
		}
		return all
	}
	for _, tt := range []struct {
		pid  uint32
		want []evidence.Need
	}{
		{1, []evidence.Need{evidence.NeedCalls}},
		{2, []evidence.Need{evidence.NeedCalls}},
		{3, []evidence.Need{evidence.NeedThreads, evidence.NeedCalls}},
		{uint32(os.Getpid()), []evidence.Need{evidence.NeedThreads, evidence.NeedCalls}},
		{uint32(gone.Process.Pid), nil},
	} {
		if got := needs(tt.pid); !slices.Equal(got, tt.want) {
			t.Errorf("of %d: %v, want %v", tt.pid, got, tt.want)
		}
	}
	if got := needs(1, 1); len(got) != 1 {
		t.Errorf("told twice: %v", got)
	}
}
