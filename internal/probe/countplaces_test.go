// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/load"
)

// TestCountPlaces has more listeners drop SYNs than there are places to count them at: what has a
// place and what has a row is all that was counted, also after some of it was taken.
func TestCountPlaces(t *testing.T) {
	p, must := openHere(t)
	const listeners, clients = 200, 3
	netns, err := kernel.FindNetNS("/proc/self/ns/net")
	must(err)
	var at []unix.Sockaddr
	connect := func(to unix.Sockaddr) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
	}
	for range listeners {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		must(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		must(unix.Listen(fd, 0))
		name, err := unix.Getsockname(fd)
		must(err)
		at = append(at, name)
		connect(name) // its queue is full
	}
	_, found := holdersHere(t, p)
	must(p.Start(found, func(uint64) bool { return true }))
	flood := func() {
		for _, to := range at {
			for range clients {
				connect(to)
			}
		}
	}
	var taken uint64
	balanced := func() (counts []listener.Count) {
		t.Helper()
		var rows, ledger uint64
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			before, err := p.Account(netns)
			must(err)
			counts, err = p.Counts()
			must(err)
			counts = slices.DeleteFunc(counts, func(c listener.Count) bool { return c.Listener.NetNS != netns })
			after, err := p.Account(netns)
			must(err)
			rows, ledger = taken, 0
			for _, c := range counts {
				rows += c.Delivered + c.Suppressed + c.Lost
			}
			for _, n := range after.Counted {
				ledger += n
			}
			if before.Counted == after.Counted && rows == ledger && ledger > 0 {
				return counts
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("%d in rows and at places, %d in the ledger", rows, ledger)
		return nil
	}
	flood()
	counts := balanced()
	if len(counts) < listeners*9/10 {
		t.Errorf("%d rows of %d listeners", len(counts), listeners)
	}
	used := func(table string) (n int) {
		must(load.EachRow(p.Objects, table, func(_ uint32, key *bpf.SynspyCountKey) { n++ }))
		return n
	}
	places := int(p.Collection.Maps["count_places"].MaxEntries())
	if n := used("count_owners"); n < places/2 || n >= len(counts) {
		t.Errorf("%d of %d places are used for %d rows", n, places, len(counts))
	}
	for _, c := range counts {
		c, err := p.Take(c)
		must(err)
		taken += c.Delivered + c.Suppressed + c.Lost
	}
	if n := used("count_owners"); n > places/8 { // SYNs that were sent again meanwhile
		t.Errorf("%d places are used after all rows were taken", n)
	}
	flood()
	balanced()
}
