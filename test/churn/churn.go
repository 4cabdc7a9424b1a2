// SPDX-License-Identifier: Apache-2.0

// Package churn runs a server whose listener thousands of short-lived processes inherit.
package churn

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	churnWorkers = 4
	lingerEvery  = 20 // processes: one stays
	lingerFor    = "0.02"
	reopenEvery  = 10 * time.Millisecond
)

// churn does what the config says and remembers it.
type churn struct {
	listener uintptr
	comm     []byte
	brief    []string // a program that ends at once, with its arguments
	linger   []string // one that takes a moment
	null     *os.File

	mu   sync.Mutex
	done Done
	err  error
}

func startChurn(perSecond, listener int, comm string) (*churn, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := &churn{listener: uintptr(listener), comm: append([]byte(comm), 0), null: null}
	if busybox, err := exec.LookPath("busybox"); err == nil { // static: three times as fast
		c.brief = []string{busybox, "true"}
		c.linger = []string{busybox, "sleep", lingerFor}
	} else {
		short, err := exec.LookPath("true")
		if err != nil {
			return nil, err
		}
		stay, err := exec.LookPath("sleep")
		if err != nil {
			return nil, err
		}
		c.brief, c.linger = []string{short}, []string{stay, lingerFor}
	}
	c.done.Comm = filepath.Base(c.brief[0])
	pause := time.Second * churnWorkers / time.Duration(max(1, perSecond))
	for range churnWorkers {
		go c.run(pause)
	}
	go c.reopen()
	return c, nil
}

// run executes one program after the other.
func (c *churn) run(pause time.Duration) {
	// The child is called what the thread is that forked it, until it executes.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&c.comm[0])), 0, 0,
		0); err != nil {
		c.fail(fmt.Errorf("set thread name: %w", err))
		return
	}
	attr := &syscall.ProcAttr{Files: []uintptr{c.null.Fd(), c.null.Fd(), c.null.Fd(),
		c.listener}}
	due := time.Now()
	for i := 1; ; i++ {
		argv := c.brief
		if i%lingerEvery == 0 {
			argv = c.linger
		}
		pid, err := syscall.ForkExec(argv[0], argv, attr)
		if err != nil {
			c.fail(fmt.Errorf("execute %s: %w", argv[0], err))
			return
		}
		c.mu.Lock()
		c.done.PIDs = append(c.done.PIDs, pid)
		c.mu.Unlock()
		for err = unix.EINTR; err == unix.EINTR; { //nolint:errorlint // a plain errno
			_, err = unix.Wait4(pid, nil, 0, nil)
		}
		if err != nil {
			c.fail(fmt.Errorf("wait for process %d: %w", pid, err))
			return
		}
		// What the machine was too slow for is not made up for.
		if due = due.Add(pause); time.Until(due) < 0 {
			due = time.Now()
		}
		time.Sleep(time.Until(due))
	}
}

// reopen opens and closes listeners.
func (c *churn) reopen() {
	for range time.Tick(reopenEvery) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Listen(fd, 1) // binds it
			unix.Close(fd)
		}
		if err != nil {
			c.fail(fmt.Errorf("open another listener: %w", err))
			return
		}
		c.mu.Lock()
		c.done.Listeners++
		c.mu.Unlock()
	}
}

func (c *churn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// report says what was done, or what went wrong.
func (c *churn) report() (Done, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done, c.err
}
