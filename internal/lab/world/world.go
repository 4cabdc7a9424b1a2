// SPDX-License-Identifier: Apache-2.0

// Package world is a private network namespace with a TUN device: the clients whose packets are
// written to it, and the devices, firewall rules, routes and control groups of its own. Nothing
// outside of it changes.
package world

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
)

// ErrPrivilege means that this process may not make a network namespace.
var ErrPrivilege = errors.New(
	"a private network namespace needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root")

// Addresses of the server side. Clients are 10.99.0.2 and fd99::2 upward; the
// prefixes are on-link, so every client's answers leave through the TUN device.
var (
	ServerAddr4 = netip.MustParseAddr("10.99.0.1")
	ServerAddr6 = netip.MustParseAddr("fd99::1")
)

// World is one private network namespace with a loopback device and a TUN
// device. It also owns everything a scenario leaves running on purpose (the
// servers, a second namespace), so that closing a listener, which is a drop
// cause of its own, happens only at Close.
type World struct {
	jobs  chan job
	quit  chan struct{} // closed to end the namespace's thread
	done  chan struct{} // closed when it has ended
	Ns    *os.File      // keeps Path valid for as long as the World lives
	inode uint64
	tun   *os.File

	mu      sync.Mutex
	inboxes map[Flow]chan Segment
	Players []*Client // all of them
	echoes  map[uint16]chan struct{}
	echo    uint16
	nextID  uint32
	syns    int
	closers []io.Closer
	closed  bool

	security *SecurityModule // see lsm

	reader sync.WaitGroup
}

type job struct {
	run  func() error
	done chan error
}

// New makes a namespace with lo up and a TUN device that has ServerAddr4
// and ServerAddr6. It needs root; without, the error wraps ErrPrivilege.
func New(ctx context.Context) (*World, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &World{
		jobs:    make(chan job),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
		inboxes: make(map[Flow]chan Segment),
		echoes:  make(map[uint16]chan struct{}),
	}
	entered := make(chan error, 1)
	go w.thread(entered)
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	if err := w.Do(w.setUp); err != nil {
		return nil, errors.Join(fmt.Errorf("set up network namespace: %w", err), w.Close())
	}
	w.reader.Go(w.readTUN)
	return w, nil
}

// thread enters a new namespace and runs jobs there until it is told to quit. It
// never unlocks its OS thread: the runtime then ends that thread instead of
// reusing it for goroutines that belong to the host's namespace.
func (w *World) thread(entered chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread cannot be ended (the runtime parks it for good), and
		// its namespace is what /proc/PID shows for the whole process. While it
		// stays locked here, the next goroutine gets another thread.
		inner := make(chan error, 1)
		go w.thread(inner)
		err := <-inner
		runtime.UnlockOSThread()
		entered <- err
		return
	}
	defer close(w.done)

	err := Unshare()
	entered <- err
	if err != nil {
		return
	}
	for {
		select {
		case j := <-w.jobs:
			j.done <- j.run()
		case <-w.quit:
			return
		}
	}
}

// Unshare moves the calling thread into a new network namespace.
func Unshare() error {
	err := unix.Unshare(unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (unshare: %w)", ErrPrivilege, err)
	}
	return err
}

// Do runs f on the namespace's thread: sockets it opens, processes it starts
// and /proc/sys/net and /proc/thread-self/net files it reads are the World's.
// Jobs run one at a time.
func (w *World) Do(f func() error) error {
	j := job{f, make(chan error, 1)}
	select {
	case w.jobs <- j:
		return <-j.done
	case <-w.done:
		return os.ErrClosed
	}
}

func (w *World) setUp() error {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	w.Ns = ns
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return fmt.Errorf("stat namespace: %w", err)
	}
	w.inode = st.Ino

	if err := SetFlags("lo", unix.IFF_UP, 0); err != nil {
		return err
	}
	if w.tun, err = openTUN(TUNName); err != nil {
		return err
	}
	// IPv4 device settings are inherited from the host (devinet_init_net), so
	// what could refuse a packet before TCP sees it is set here. IPv6 may be
	// compiled out: then only the IPv6 scenarios fail.
	for _, s := range [][2]string{
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf." + TUNName + ".rp_filter", "0"},
		{"net.ipv4.icmp_echo_ignore_all", "0"},
	} {
		if err := WriteSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	if err := Configure4(TUNName, ServerAddr4, 24); err != nil {
		return err
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, s := range [][2]string{
		{"net.ipv6.conf.all.disable_ipv6", "0"},
		{"net.ipv6.conf." + TUNName + ".disable_ipv6", "0"},
		{"net.ipv6.conf." + TUNName + ".accept_dad", "0"},
	} {
		if err := WriteSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	if err := configure6(TUNName, ServerAddr6, 64); err != nil {
		return err
	}
	return awaitAddr6(ServerAddr6)
}

// NetNS returns the namespace's inode, as in records.
func (w *World) NetNS() uint64 { return w.inode }

// Path returns a path of the namespace that setns and --netns accept while the
// World is open.
func (w *World) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.Ns.Fd())
}

// Sysctl sets a variable by its dotted name, in this namespace only. Names
// outside net. would be the host's, so they are refused, and so are those of
// net. that are not per namespace and therefore absent here.
func (w *World) Sysctl(name, value string) error {
	return w.Do(func() error { return WriteSysctl(name, value) })
}

// WriteSysctl sets one of the namespace that the calling thread is in.
func WriteSysctl(name, value string) error {
	if !strings.HasPrefix(name, "net.") || strings.Contains(name, "/") {
		return fmt.Errorf("set %s: only net. variables are private to a namespace", name)
	}
	// /proc/sys/net shows the tables of the opening thread's namespace
	// (net_ctl_header_lookup), and of no other.
	f, err := os.OpenFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("set %s to %q: %w", name, value, err)
	}
	return nil
}

// Counters reads the namespace's listen-path counters from /proc/net/netstat,
// summed over all CPUs by the kernel: the measurement that owes nothing to the
// tracer. Every counter of the closed list is present.
func (w *World) Counters() (map[event.Counter]uint64, error) {
	var counters map[event.Counter]uint64
	err := w.Do(func() error {
		f, err := os.Open("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		defer f.Close()
		counters, err = parseNetstat(f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return counters, nil
}

// parseNetstat reads the TcpExt pair of lines: names, then values.
func parseNetstat(r io.Reader) (map[event.Counter]uint64, error) {
	var names []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields, ok := strings.CutPrefix(lines.Text(), "TcpExt: ")
		if !ok {
			continue
		}
		if names == nil {
			names = strings.Fields(fields)
			continue
		}
		values := strings.Fields(fields)
		if len(values) != len(names) {
			return nil, fmt.Errorf("TcpExt has %d names and %d values", len(names),
				len(values))
		}
		byName := make(map[string]string, len(names))
		for i, name := range names {
			byName[name] = values[i]
		}
		counters := make(map[event.Counter]uint64, event.NumCounters)
		for c := range event.NumCounters {
			n, err := strconv.ParseUint(byName[c.String()], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", c, err)
			}
			counters[c] = n
		}
		return counters, nil
	}
	return nil, errors.Join(errors.New("no TcpExt lines"), lines.Err())
}

// Syns returns how many SYNs the clients of this World have sent.
func (w *World) Syns() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.syns
}

// Keep makes Close close c, last kept first.
func (w *World) Keep(c io.Closer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, c)
}

// keepLongest makes Close close c after everything that is kept by then.
func (w *World) keepLongest(c io.Closer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = slices.Insert(w.closers, 0, c)
}

// Close ends the servers, the TUN device and the namespace's thread. The kernel
// then takes the namespace down by itself (cleanup_net, asynchronously). The
// second and later calls do nothing.
func (w *World) Close() error {
	w.mu.Lock()
	closers, closed := w.closers, w.closed
	w.closers, w.closed = nil, true
	w.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i].Close())
	}
	if w.tun != nil {
		errs = append(errs, w.tun.Close())
		w.reader.Wait()
	}
	close(w.quit)
	<-w.done
	if w.Ns != nil {
		errs = append(errs, w.Ns.Close())
	}
	return errors.Join(errs...)
}

// Sysctls sets name, value pairs.
func (w *World) Sysctls(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := w.Sysctl(pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}
