// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"testing"

	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/plan"
	"github.com/synspy/synspy/internal/probe/probetest"
	"golang.org/x/sys/unix"
)

// TestShortages lets accept() fail for want of a descriptor, and looks for it in each way that this kernel allows.
func TestShortages(t *testing.T) {
	here, err := facts.Gather("")
	if err != nil {
		t.Fatal(err)
	}
	here.Try()
	planned := plan.Plan{Hooks: []plan.Hook{{Name: facts.AcceptFunction, Backend: facts.Auto}}}
	hooks := shortageHooks(here, &planned)
	if planned = (plan.Plan{}); len(shortageHooks(here, &planned)) != 1 {
		t.Error("where accept() is not hooked, more than the exit of system calls is tried")
	}
	for _, hook := range hooks {
		t.Run(hook.Name+" by "+hook.Backend, func(t *testing.T) {
			s, err := OpenHook(here, hook)
			if refused := here.Refusal(hook.Name, hook.Backend); err != nil &&
				refused != nil {
				t.Logf("this kernel refuses %s: %v", hook.Backend, refused)
				return
			}
			if hook.Backend == facts.Trampoline && errors.Is(err, unix.ENOENT) {
				t.Log("this kernel attaches a trampoline once, and a kprobe takes its place")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			probetest.LogVerified(t, s.collection.Programs)
			if s.Costly() != (hook.Name == "sys_exit") {
				t.Error("what every system call pays for is not called costly, or the other way round")
			}
			listener := listenHere(t)
			own := uint32(unix.Getpid())
			counted := func() (n uint64) {
				list, overflowed, err := s.Read()
				if err != nil || overflowed != 0 {
					t.Fatal(overflowed, err)
				}
				for _, one := range list {
					if one.PID != own || one.Error != int32(unix.EMFILE) ||
						one.FD != int32(listener) && one.FD != -1 {
						t.Errorf("%+v; the listener is %d", one, listener)
					}
					n += one.Count
				}
				return n
			}
			fail(t, listener) // nobody sees it
			if err := s.Attach(); err != nil {
				t.Fatal(err)
			}
			fail(t, listener) // it is another process's so far
			if err := s.Watch([]uint32{own}); err != nil {
				t.Fatal(err)
			}
			if n := counted(); n != 0 {
				t.Errorf("%d failures before the process was watched", n)
			}
			for range 5 {
				fail(t, listener)
			}
			if _, _, err := unix.Accept4(listener, 0); !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			if err := s.Detach(); err != nil {
				t.Fatal(err)
			}
			fail(t, listener)
			if n := counted(); n != 5 {
				t.Errorf("%d failures were counted, there were 5", n)
			}
		})
	}
}

func listenHere(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
			unix.Listen(fd, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// fail calls accept() while the process may have no further descriptor.
func fail(t *testing.T, listener int) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE,
		&unix.Rlimit{Cur: 1, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if restored := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); restored != nil ||
		!errors.Is(err, unix.EMFILE) {
		t.Fatal(err, restored)
	}
}
