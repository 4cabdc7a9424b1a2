// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/lab/world/worldtest"
)

const port = 8080

var (
	server4 = netip.AddrPortFrom(world.ServerAddr4, port)
	server6 = netip.AddrPortFrom(world.ServerAddr6, port)
)

func anyAddr(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

func newWorld(t testing.TB) *world.World {
	t.Helper()
	w := worldtest.New(t)
	must(t, w.Sysctl("net.ipv4.tcp_syncookies", "1"))
	must(t, w.Sysctl("net.ipv4.tcp_abort_on_overflow", "0"))
	return w
}

// startServer starts a server with one listener that nobody accepts from.
func startServer(t testing.TB, w *world.World, comm string,
	listeners ...server.ListenConfig) *server.Server {
	t.Helper()
	s, err := server.Start(w, server.Config{Comm: []byte(comm), Listeners: listeners})
	must(t, err)
	return s
}

// fill completes as many handshakes as listen(backlog) holds: one more than backlog.
func fill(t testing.TB, w *world.World, to netip.AddrPort, backlog int) {
	t.Helper()
	must(t, w.Handshakes(t.Context(), to, backlog+1))
}

// loseSYNs sends SYNs that must get no answer.
func loseSYNs(t testing.TB, w *world.World, to netip.AddrPort, n int) []*world.Client {
	t.Helper()
	clients, err := w.Burst(t.Context(), to, n)
	must(t, err)
	for _, c := range clients {
		if c.Answered() {
			t.Fatalf("the SYN of %s was answered: the scenario is not what it should be", c.Local)
		}
	}
	return clients
}

func counters(t testing.TB, w *world.World) map[event.Counter]uint64 {
	t.Helper()
	c, err := w.Counters()
	must(t, err)
	return c
}

// moved is how far a counter of the namespace moved since before.
func moved(t testing.TB, w *world.World, before map[event.Counter]uint64, c event.Counter) int {
	t.Helper()
	return int(counters(t, w)[c] - before[c])
}

// cutLoopback ends all traffic over loopback: nothing is retransmitted any more.
func cutLoopback(t testing.TB, w *world.World) {
	t.Helper()
	must(t, w.Do(func() error {
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr) // no flags: down
	}))
}

// cgroupOf is the cgroup that a record should name for a process, from its
// /proc/PID/cgroup: the v2 one, or, where that is the root, a v1 hierarchy's.
func cgroupOf(t testing.TB, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must(t, err)
	paths := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for name := range strings.SplitSeq(f[1], ",") {
			paths[name] = f[2]
		}
	}
	for _, name := range []string{"", "name=systemd", "cpu", "memory", "pids"} {
		if path := paths[name]; path != "" && path != "/" {
			return path
		}
	}
	return "/"
}

// newCgroup makes a v2 cgroup with the given name below one of the test's own
// and returns its path in the hierarchy and its directory. It must be made
// before the World whose processes are moved there, so as to be removed after.
func newCgroup(t testing.TB, name string) (path, dir string) {
	t.Helper()
	parent := fmt.Sprintf("/synspy-e2e-%d", os.Getpid())
	path = parent + "/" + name
	mount := cgroup2Mount(t)
	dir = filepath.Join(mount, path)
	must(t, os.MkdirAll(dir, 0o755))
	t.Cleanup(func() {
		// Busy until the last process in it is reaped.
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				t.Error(err)
				break
			}
		}
		_ = os.Remove(filepath.Join(mount, parent)) // others may be in it
	})
	return path, dir
}

func moveTo(t testing.TB, dir string, pid int) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
}

// cgroup2Mount finds where cgroup v2 is mounted, and mounts it where it is not:
// a guest has no service manager to do that.
func cgroup2Mount(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	const dir = "/sys/fs/cgroup"
	must(t, unix.Mount("cgroup2", dir, "cgroup2", 0, ""))
	return dir
}

// herd is a crowd of ordinary clients with the kernel's own TCP, on every CPU.
type herd struct {
	quit      atomic.Bool
	threads   sync.WaitGroup
	connected atomic.Int64
	tries     atomic.Int64
	err       atomic.Pointer[error]
}

// startHerd lets n clients connect to the address, each again and again for as
// long as timeout at a time, on a thread of its own that is bound to a CPU.
func startHerd(t testing.TB, w *world.World, to netip.AddrPort, n int,
	timeout time.Duration) *herd {
	t.Helper()
	cpus := onlineCPUs(t)
	if len(cpus) < 2 {
		t.Fatal("two CPUs at once need two CPUs")
	}
	h := &herd{}
	for i := range n {
		h.threads.Go(func() {
			if err := h.client(w.Path(), to, cpus[i%len(cpus)], timeout); err != nil {
				h.err.CompareAndSwap(nil, &err)
			}
		})
	}
	return h
}

// stop ends the clients and returns when the last one has ended.
func (h *herd) stop(t testing.TB) {
	t.Helper()
	h.quit.Store(true)
	h.threads.Wait()
	if err := h.err.Load(); err != nil {
		t.Fatal(*err)
	}
}

func (h *herd) client(netns string, to netip.AddrPort, cpu int, timeout time.Duration) error {
	runtime.LockOSThread() // and never unlocked: the thread ends with us
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind client to CPU %d: %w", cpu, err)
	}
	ns, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Setns(ns, unix.CLONE_NEWNET)
	unix.Close(ns)
	if err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	for !h.quit.Load() {
		if err := h.connect(to, timeout); err != nil {
			return err
		}
	}
	return nil
}

func (h *herd) connect(to netip.AddrPort, timeout time.Duration) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Closed with an RST, or, half open, without a word.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER,
		&unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	h.tries.Add(1)
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	if n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) == 0 {
		h.connected.Add(1)
	}
	return nil
}

func onlineCPUs(t testing.TB) (cpus []int) {
	t.Helper()
	var set unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &set))
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// sameList compares two lists whatever their order.
func sameList[T any](a, b []T, compare func(T, T) int) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, compare)
	slices.SortFunc(b, compare)
	return slices.EqualFunc(a, b, func(x, y T) bool { return compare(x, y) == 0 })
}

// locals lists the clients' own addresses.
func locals(clients []*world.Client) []netip.AddrPort {
	list := make([]netip.AddrPort, len(clients))
	for i, c := range clients {
		list[i] = c.Local
	}
	return list
}

func clientsOf(drops []record) []netip.AddrPort {
	list := make([]netip.AddrPort, len(drops))
	for i := range drops {
		list[i] = drops[i].client()
	}
	return list
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Ino
}
