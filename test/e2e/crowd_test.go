// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// TestCrowd has 1,200 network namespaces come, lose SYNs and end, as any user may have them, and
// then a server in a later one lose nearly all that comes: all of it is counted to the unit, and
// nothing is said to have had no room.
func TestCrowd(t *testing.T) {
	const crowd, each, lost = 1200, 5, 159
	tr := start(t, "--rate", "1")
	namespaces := make(map[uint64]bool)
	var leave []func()
	for range crowd {
		inode, end, err := crowdedNamespace(each)
		leave = append(leave, end)
		if err != nil {
			for _, f := range leave {
				f()
			}
			t.Fatal(err)
		}
		namespaces[inode] = true
	}
	for _, f := range leave {
		f()
	}
	time.Sleep(2 * time.Second) // they are looked for once a second, and their memory goes later than they
	w := newWorld(t)
	to := netip.AddrPortFrom(world.ServerAddr4, port)
	startServer(t, w, "victim", server.ListenConfig{Addr: anyAddr(port), Backlog: 1})
	fill(t, w, to, 1)
	loseSYNs(t, w, to, lost)
	a := tr.stop()

	gone, alive := 0, 0
	for _, r := range a.summary.Ledger {
		switch {
		case r.Counter != event.CounterListenOverflows.String():
		case r.NetNS == w.NetNS() && !r.Gone:
			alive += r.Synspy + r.Unattributed
		case namespaces[r.NetNS]:
			gone += r.Synspy + r.Unattributed
		}
	}
	if gone != crowd*each || alive != lost {
		t.Errorf("%d SYNs counted in the crowd and %d at the later server, want %d and %d",
			gone, alive, crowd*each, lost)
	}
	if o := a.summary.Overflow; o.Hides() && o.Changes == 0 { // the ring may be too small for so many openings at once
		t.Errorf("no room for %+v", *o)
	}
}

// crowdedNamespace makes a namespace in which a full listener loses so many SYNs, and which ends
// with its sockets.
func crowdedNamespace(syns int) (inode uint64, end func(), err error) {
	done := make(chan error, 1)
	var sockets []int
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			var stat unix.Stat_t
			if err := unix.Stat(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()),
				&stat); err != nil {
				return err
			}
			inode = stat.Ino
			socket := func() (int, error) {
				fd, err := unix.Socket(unix.AF_INET,
					unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
				if err == nil {
					sockets = append(sockets, fd)
				}
				return fd, err
			}
			listener, err := socket()
			if err != nil {
				return err
			}
			lo, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			lo.SetUint16(unix.IFF_UP)
			if err := unix.IoctlIfreq(listener, unix.SIOCSIFFLAGS, lo); err != nil {
				return fmt.Errorf("set up lo: %w", err)
			}
			at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 8080}
			if err := unix.Bind(listener, at); err != nil {
				return err
			}
			if err := unix.Listen(listener, 0); err != nil {
				return err
			}
			for range 1 + syns { // the first one fills the queue
				fd, err := socket()
				if err != nil {
					return err
				}
				if err := unix.Connect(fd, at); err != nil &&
					err != unix.EINPROGRESS {
					return os.NewSyscallError("connect", err)
				}
			}
			return nil
		}()
	}()
	err = <-done
	return inode, func() {
		for _, fd := range sockets {
			unix.Close(fd)
		}
	}, err
}
