// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

// crew is a server with all its processes, in a namespace that has no other.
type crew struct {
	t      *testing.T
	w      *world.World
	leader int // the process that was started
	output bytes.Buffer
}

// startCrew starts a server in the namespace. Its processes end with the test: they are
// one process group.
func startCrew(t *testing.T, w *world.World, cmd *exec.Cmd) *crew {
	t.Helper()
	c := &crew{t: t, w: w}
	cmd.Stdout, cmd.Stderr = &c.output, &c.output
	cmd.WaitDelay = patience // for the output of those that its leader leaves behind
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, w.Do(cmd.Start))
	c.leader = cmd.Process.Pid
	t.Cleanup(func() {
		stdin.Close()
		_ = unix.Kill(-c.leader, unix.SIGKILL) // not reaped yet: the number is still its own
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the server said:\n%s", &c.output)
		}
	})
	return c
}

// await waits for what must become true.
func (c *crew) await(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not after %v; listeners are held by %v", what, patience,
				c.truth())
		}
	}
}

// sockets lists the inodes of the namespace's TCP sockets of a state (/proc/net/tcp has
// it in hexadecimal) that are in files: what waits in an accept queue is not.
func (c *crew) sockets(state string) (inodes []uint64) {
	c.t.Helper()
	must(c.t, c.w.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/tcp")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != state ||
				!strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			inode, err := strconv.ParseUint(f[9], 10, 64)
			if err != nil {
				return err
			}
			if inode != 0 {
				inodes = append(inodes, inode)
			}
		}
		return nil
	}))
	return inodes
}

func (c *crew) listeners() []uint64 { return c.sockets("0A") }

// connected lists who has a connection of the server's open.
func (c *crew) connected() []int {
	of := holdersOf(c.t, c.sockets("01"))
	return of.pids()
}

// truth is who has which socket open, by inode.
type truth map[uint64][]process

func (c *crew) truth() truth {
	c.t.Helper()
	return holdersOf(c.t, c.listeners())
}

// hold reports whether there are so many listeners that so many processes hold each.
func (c *crew) hold(sockets, holders int) bool {
	of := c.truth()
	for _, list := range of {
		if len(list) != holders {
			return false
		}
	}
	return len(of) == sockets
}

func (c *crew) stop(pids []int) {
	c.t.Helper()
	for _, pid := range pids {
		must(c.t, unix.Kill(pid, unix.SIGSTOP))
	}
	for _, pid := range pids {
		c.await(fmt.Sprintf("process %d stops", pid), func() bool {
			return isStopped(c.t, pid)
		})
	}
}

func (c *crew) proceed(pids []int) {
	c.t.Helper()
	for _, pid := range pids {
		must(c.t, unix.Kill(pid, unix.SIGCONT))
	}
}

// isStopped reports whether every thread of a process is.
func isStopped(t testing.TB, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			return false // it has ended: look again
		}
		if _, state, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')'):],
			[]byte(" ")); !ok || state[0] != 'T' {
			return false
		}
	}
	return len(threads) > 0
}

// holdersOf looks through all processes' open files.
func holdersOf(t testing.TB, inodes []uint64) truth {
	t.Helper()
	found := make(truth)
	dirs, err := os.ReadDir("/proc")
	must(t, err)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		sockets, err := readSockets(pid)
		if err != nil {
			continue // gone
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			continue
		}
		for _, inode := range inodes {
			if slices.Contains(sockets, inode) {
				found[inode] = append(found[inode],
					process{PID: pid,
						Comm: strings.TrimSuffix(string(comm), "\n")})
			}
		}
	}
	return found
}

// pollersOf narrows it to those that wait for each socket with epoll (proc_pid_fdinfo(5)).
func pollersOf(t testing.TB, holders truth) truth {
	t.Helper()
	polled := make(truth)
	for inode, list := range holders {
		for _, p := range list {
			files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", p.PID))
			must(t, err)
			for _, file := range files {
				info, err := os.ReadFile(file)
				if err == nil && slices.Contains(strings.Fields(string(info)),
					fmt.Sprintf("ino:%x", inode)) {
					polled[inode] = append(polled[inode], p)
				}
			}
		}
	}
	return polled
}

// processes lists who holds any of the sockets, each once, by number.
func (of truth) processes(inodes ...uint64) (list []process) {
	for _, inode := range inodes {
		list = append(list, of[inode]...)
	}
	slices.SortFunc(list, func(a, b process) int { return a.PID - b.PID })
	return slices.CompactFunc(list, func(a, b process) bool { return a.PID == b.PID })
}

func (of truth) equal(other truth) bool {
	return maps.EqualFunc(of, other, func(a, b []process) bool {
		return slices.EqualFunc(a, b, func(x, y process) bool {
			return x.PID == y.PID && x.Comm == y.Comm
		})
	})
}

func (of truth) inodes() []uint64 { return slices.Collect(maps.Keys(of)) }

// pids lists all processes, by number.
func (of truth) pids() []int { return pidsOf(of.processes(of.inodes()...)) }

func pidsOf(list []process) []int {
	pids := make([]int, len(list))
	for i, p := range list {
		pids[i] = p.PID
	}
	return pids
}
