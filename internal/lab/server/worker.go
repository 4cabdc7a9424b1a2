// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ways in which a worker waits after each connection.
const (
	waitSleep = iota
	waitFutex // for a word that nobody changes, as for a lock that another worker holds
	numWaits
)

// prefork makes a master and workers of the calling process, as servers do that fork before they
// accept: each is a process with one thread and the listener open. The master waits in epoll for a
// pipe, and never accepts; each worker waits after each connection in another way than the one
// before it. The caller should close the listener.
func prefork(listener, workers int, pause time.Duration) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make a pipe for the master: %w", err)
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, pipe[0],
			&unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pipe[0])})
	}
	if err != nil {
		return fmt.Errorf("watch the master's pipe: %w", err)
	}
	if err := fork(func() { master(poll) }); err != nil {
		return err
	}
	for i := range workers {
		if err := fork(func() { worker(listener, i%numWaits, pause) }); err != nil {
			return err
		}
	}
	return nil
}

// fork makes a process of the calling thread that ends with it. What it does must be system calls
// alone: nothing else of the runtime is there.
func fork(do func()) error {
	runtime.LockOSThread() // for good: PR_SET_PDEATHSIG is about the thread
	parent := unix.Getpid()
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("fork: %w", errno)
	}
	if pid != 0 {
		return nil
	}
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	if now, _, _ := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); int(now) == parent {
		do()
	}
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	return nil // not reached
}

func master(poll int) {
	var events [1]unix.EpollEvent
	for {
		_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poll),
			uintptr(unsafe.Pointer(&events[0])), 1, 1000, 0, 0)
	}
}

func worker(listener, wait int, pause time.Duration) {
	const wake = 0x80 // FUTEX_WAIT | FUTEX_PRIVATE_FLAG
	var word uint32
	for {
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, 0, 0, 0)
		if errno != 0 {
			continue
		}
		left := unix.Timespec{Sec: int64(pause / time.Second),
			Nsec: int64(pause % time.Second)}
		if wait == waitFutex {
			_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)),
				wake, 0, uintptr(unsafe.Pointer(&left)), 0, 0)
		} else {
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP,
				uintptr(unsafe.Pointer(&left)), 0, 0)
		}
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
}

// pollLoop accepts on a thread of its own as an event loop does: it waits in epoll, takes all that
// there is, and hangs up.
func pollLoop(fd int) {
	runtime.LockOSThread()
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = errors.Join(unix.SetNonblock(fd, true),
			unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd,
				&unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "poll the listener:", err)
		return
	}
	var events [1]unix.EpollEvent
	for {
		if _, err := unix.EpollWait(poll, events[:], -1); err != nil &&
			!errors.Is(err, unix.EINTR) {
			fmt.Fprintln(os.Stderr, "epoll_wait:", err)
			return
		}
		for {
			accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				break
			}
			unix.Close(accepted)
		}
	}
}

// goroutineLoop accepts as programs in Go do: while it sleeps, no thread of the process does.
func goroutineLoop(fd int, pause time.Duration) {
	file := os.NewFile(uintptr(fd), "listener")
	l, err := net.FileListener(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "listen:", err)
		return
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "accept:", err)
			return
		}
		time.Sleep(pause)
		conn.Close()
	}
}

// tightLoop accepts with as many further descriptors as the limit leaves, keeps what it accepted,
// and tries again at once, or after the pause, when there is none left.
func tightLoop(fd int, pause time.Duration) {
	runtime.LockOSThread()
	for {
		if _, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); errors.Is(err, unix.EMFILE) {
			rest(pause)
		}
	}
}

// leaveFiles lets the process have so many descriptors more than it has.
func leaveFiles(more uint64) error {
	// The lowest free number is one more than the highest taken, or less.
	probe, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("find a free descriptor: %w", err)
	}
	defer unix.Close(probe)
	limit := unix.Rlimit{Cur: uint64(probe) + more, Max: uint64(probe) + more}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("lower the limit of open files: %w", err)
	}
	return nil
}
