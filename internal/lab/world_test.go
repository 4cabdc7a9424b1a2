// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/listenpath"
	"github.com/synspy/synspy/internal/lab/scenario"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
	"github.com/synspy/synspy/internal/lab/world/worldtest"
)

func netnsOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	return st.Ino
}

func TestWorldIsPrivate(t *testing.T) {
	host := netnsOf(t, "/proc/self/ns/net")
	hostSysctl, err := os.ReadFile("/proc/sys/net/ipv4/tcp_syncookies")
	if err != nil {
		t.Fatal(err)
	}
	w := worldtest.New(t)
	if w.NetNS() == host || w.NetNS() == 0 {
		t.Fatalf("the World's namespace is %d, the host's %d", w.NetNS(), host)
	}
	if got := netnsOf(t, w.Path()); got != w.NetNS() {
		t.Errorf("%s is namespace %d, want %d", w.Path(), got, w.NetNS())
	}
	if got := netnsOf(t, fmt.Sprintf("/proc/%d/ns/net", os.Getpid())); got != host {
		t.Errorf("this process now shows namespace %d, want the host's %d", got, host)
	}
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
		t.Fatal(err)
	}
	var inside []byte
	if err := w.Do(func() (err error) {
		inside, err = os.ReadFile("/proc/sys/net/ipv4/tcp_syncookies")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	outside, err := os.ReadFile("/proc/sys/net/ipv4/tcp_syncookies")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(inside)) != "2" || string(outside) != string(hostSysctl) {
		t.Errorf("tcp_syncookies is %q inside, %q outside (before: %q)", inside, outside,
			hostSysctl)
	}
	if err := w.Sysctl("kernel.printk", "1"); err == nil {
		t.Error("a sysctl of the whole host was accepted")
	}
}

// A World made on the main thread would leave the process's namespace changed
// and the thread parked for good.
func TestWorldFromMainThread(t *testing.T) {
	for range 8 {
		w := worldtest.New(t)
		if err := w.Do(func() error {
			if unix.Gettid() == os.Getpid() {
				return errors.New("the World runs on the main thread")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

func TestServerProcess(t *testing.T) {
	w := worldtest.New(t)
	server, err := server.Start(w, server.Config{
		Comm: []byte(listenpath.HostileComm),
		Listeners: []server.ListenConfig{{Addr: world.Any4, Backlog: world.Backlog},
			{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), 81), Backlog: 5,
				Accept: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if server.PID == os.Getpid() {
		t.Error("the server is this process")
	}
	if got := netnsOf(t, fmt.Sprintf("/proc/%d/ns/net", server.PID)); got != w.NetNS() {
		t.Errorf("the server runs in namespace %d, want %d", got, w.NetNS())
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", server.PID))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSuffix(string(comm), "\n"); got != listenpath.HostileComm {
		t.Errorf("the server's name is %q, want %q", got, listenpath.HostileComm)
	}
	if err := w.Handshakes(t.Context(), world.Server4, world.Capacity); err != nil {
		t.Fatal(err)
	}
	if n := acceptQueue(t, w, world.Port); n != world.Capacity {
		t.Errorf("the accept queue holds %d, want %d", n, world.Capacity)
	}
}

func TestServerFailure(t *testing.T) {
	w := worldtest.New(t)
	_, err := server.Start(w, server.Config{Listeners: []server.ListenConfig{
		{Addr: netip.MustParseAddrPort("192.0.2.1:80"), Backlog: 1},
	}})
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1:80") {
		t.Errorf("listening on a foreign address gave %v", err)
	}
}

func TestClientTimestampsAndData(t *testing.T) {
	w := worldtest.New(t)
	if _, err := server.Start(w,
		server.Config{Listeners: []server.ListenConfig{{Addr: world.Any4,
			Backlog: 16}}}); err != nil {
		t.Fatal(err)
	}
	before, err := w.Counters()
	if err != nil {
		t.Fatal(err)
	}
	c := w.Client(world.Server4)
	c.Timestamps = true
	if err := c.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Data([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.WasReset() {
		t.Error("the client was reset")
	}
	// A half-open client that changes its mind: tcp_check_req drops the request.
	c = w.Client(world.Server4)
	if err := errors.Join(c.SYN(), c.WaitSYNACK(t.Context()), c.RST()); err != nil {
		t.Fatal(err)
	}
	moved, err := scenario.Since(w, before)
	if err != nil {
		t.Fatal(err)
	}
	if want := scenario.Counters(map[event.Counter]uint64{event.CounterEmbryonicRsts: 1}); !maps.Equal(moved, want) {
		t.Errorf("counters moved %v, want %v", moved, want)
	}
	if n := acceptQueue(t, w, world.Port); n != 1 {
		t.Errorf("the accept queue holds %d, want 1", n)
	}
}

func TestBurstOfMany(t *testing.T) {
	w := worldtest.New(t)
	if err := w.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Start(w,
		server.Config{Listeners: []server.ListenConfig{{Addr: world.Any4,
			Backlog: 16}}}); err != nil {
		t.Fatal(err)
	}
	const n = 3000
	clients, err := w.Burst(t.Context(), world.Server4, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := scenario.WantAnswers(clients, n); err != nil {
		t.Error(err)
	}
	seen := make(map[netip.AddrPort]bool)
	for _, c := range clients {
		seen[c.Local] = true
	}
	if len(seen) != n || w.Syns() != n {
		t.Errorf("%d addresses and %d SYNs for %d clients", len(seen), w.Syns(), n)
	}
}

// A parent that is killed runs no Close: its server must die all the same.
func TestServerDiesWithParent(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), orphanEnv+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscanln(stdout, &pid)
	if killErr := cmd.Process.Kill(); err != nil || killErr != nil {
		t.Fatal(err, killErr)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		// Gone, reaped by whoever inherited it, or a zombie of theirs.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("server %d is still there", pid)
		}
	}
}

func TestCloseTwiceAndDoAfterClose(t *testing.T) {
	w, err := world.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	if err := w.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Do after Close gave %v", err)
	}
}

func TestCancelledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := world.New(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("NewWorld gave %v", err)
	}
}

// Without privileges the error must say what is missing. Capabilities are per
// thread, so a thread of its own gives them up and is not reused.
func TestWithoutPrivileges(t *testing.T) {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		result <- world.Unshare()
	}()
	if err := <-result; !errors.Is(err, world.ErrPrivilege) {
		t.Errorf("without capabilities: %v", err)
	}
}

// acceptQueue reads sk_ack_backlog of a listener from /proc/net/tcp and tcp6,
// where a listener's rx_queue is its accept queue.
func acceptQueue(t *testing.T, w *world.World, port uint16) int {
	t.Helper()
	length := -1
	err := w.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			f, err := os.Open("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			defer f.Close()
			for lines := bufio.NewScanner(f); lines.Scan(); {
				fields := strings.Fields(lines.Text())
				if len(fields) < 5 || fields[3] != "0A" ||
					!strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
					continue
				}
				var tx int
				if _, err := fmt.Sscanf(fields[4], "%X:%X", &tx,
					&length); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return length
}

// namespaceUsers lists the threads that are in one of the namespaces.
func namespaceUsers(t *testing.T, inodes map[uint64]bool) []string {
	t.Helper()
	threads, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var users []string
	for _, path := range threads {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && inodes[st.Ino] {
			users = append(users, path)
		}
	}
	return users
}

// The IPv6 address must answer from the first packet on, in every new World.
func TestIPv6AtOnce(t *testing.T) {
	for range 30 {
		w := worldtest.New(t)
		if _, err := scenario.IdleServer(w, world.Any6, world.Backlog); err != nil {
			t.Fatal(err)
		}
		if err := w.Handshakes(t.Context(), world.Server6, 1); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
