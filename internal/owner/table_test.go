// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
)

// none is a /proc without processes: nothing can be recognised.
func none(t testing.TB) *Table { return New(t.TempDir(), nil) }

func ms(n uint64) *uint64 { return &n }

func TestRoles(t *testing.T) {
	tab := none(t)
	tab.Opened(1, 10, 100, "master")
	tab.Replace([]Holder{
		{Socket: 1, Inode: 10, PID: 100, Comm: "master", StartNs: 5e8},
		{Socket: 1, Inode: 10, PID: 102, Comm: "worker", StartNs: 6e8},
		{Socket: 1, Inode: 10, PID: 101, Comm: "worker", StartNs: 6e8},
		{Socket: 1, Inode: 10, PID: 101, Comm: "worker", StartNs: 6e8}, // second descriptor
	})
	tab.Accepted(1, 102, 6e8, 1_000_000_000)
	tab.Accepted(1, 101, 9e8, 1_000_000_000) // a later process of that number
	tab.Accepted(1, 300, 9e8, 1_000_000_000) // holds it no more
	tab.Accepted(2, 300, 9e8)
	want := []event.Process{
		{PID: 102, Comm: "worker", Role: event.RoleAcceptor, LastAcceptMs: ms(4900)},
		{PID: 100, Comm: "master", Role: event.RoleListener},
		{PID: 101, Comm: "worker", Role: event.RoleHolder},
	}
	if diff := cmp.Diff(want, tab.Processes(1, 5_900_000_000), ignoreStart); diff != "" {
		t.Error(diff)
	}
	// The same processes keep their roles, a reused PID starts anew, and who
	// is not listed is gone.
	tab.Replace([]Holder{
		{Socket: 1, Inode: 10, PID: 100, Comm: "master", StartNs: 7e8},
		{Socket: 1, Inode: 10, PID: 102, Comm: "renamed", StartNs: 6e8},
	})
	want = []event.Process{
		{PID: 102, Comm: "renamed", Role: event.RoleAcceptor, LastAcceptMs: ms(0)},
		{PID: 100, Comm: "master", Role: event.RoleHolder},
	}
	if diff := cmp.Diff(want, tab.Processes(1, 1_000_000_001), ignoreStart); diff != "" {
		t.Error(diff)
	}
	if got := tab.Processes(99, 0); got != nil {
		t.Errorf("unknown socket has %v", got)
	}
}

// TestAcceptorByState: who was seen to have a connection of its own stays an
// acceptor when it has closed it, and its number's next owner is none.
func TestAcceptorByState(t *testing.T) {
	tab := none(t)
	holders := func(start uint64) []Holder {
		return []Holder{
			{Socket: 1, Inode: 10, PID: 100, Comm: "master", StartNs: 5e8},
			{Socket: 1, Inode: 10, PID: 101, Comm: "worker", StartNs: start},
		}
	}
	for round, test := range []struct {
		start    uint64
		accepted bool
		want     event.Role
	}{
		{6e8, false, event.RoleHolder},
		{6e8, true, event.RoleAcceptor},
		{6e8, false, event.RoleAcceptor},
		{7e8, false, event.RoleHolder},
	} {
		err := tab.ReplaceBy(func(enter func(Holder)) error {
			for _, h := range holders(test.start) {
				enter(h)
			}
			if test.accepted {
				tab.Accepted(1, 101, test.start)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]uint32{100, 101}, tab.Holders(1)); diff != "" {
			t.Error(diff)
		}
		for _, p := range tab.Processes(1, 0) {
			want := event.RoleHolder
			if p.PID == 101 {
				want = test.want
			}
			if p.Role != want || p.LastAcceptMs != nil {
				t.Errorf("round %d: %+v, want role %s", round, p, want)
			}
		}
	}
}

// TestReplaceRace: an iterator that passed before listen() was called does not
// wipe what listen() told, but the next one does: from then on, for records of
// what was dropped before may come later.
func TestReplaceRace(t *testing.T) {
	tab := none(t)
	tab.Opened(1, 10, 100, "a")
	before := kernel.Monotonic()
	const later = math.MaxUint64
	for round, want := range []int{1, 0} {
		tab.Replace(nil)
		if got := len(tab.Processes(1, later)); got != want {
			t.Errorf("round %d: %d processes, want %d", round, got, want)
		}
		if got := len(tab.ProcessesOfGroup([]uint64{1}, later)); got != want {
			t.Errorf("round %d: %d processes of the group, want %d", round, got, want)
		}
		if got := len(tab.Processes(1, before)); got != 1 {
			t.Errorf("round %d: %d processes of a drop from before, want 1", round, got)
		}
	}
	// One that an iterator finds after all is as it was.
	tab.Replace([]Holder{{Socket: 1, Inode: 10, PID: 100, Comm: "a"}})
	if got := len(tab.Processes(1, later)); got != 1 {
		t.Errorf("found again: %d processes, want 1", got)
	}
	// A descriptor that was handed on and closed is gone at once.
	tab.Opened(2, 20, 100, "a")
	tab.Replace([]Holder{{Socket: 2, Inode: 20, PID: 200, StartNs: 1e9}})
	if got := tab.Processes(2, 0); len(got) != 1 || got[0].PID != 200 {
		t.Errorf("got %v", got)
	}
}

func TestSocketAddressReused(t *testing.T) {
	tab := none(t)
	tab.Opened(1, 10, 100, "old")
	tab.Closed(1)
	tab.Opened(1, 11, 200, "new")
	if got := tab.Processes(1, 0); len(got) != 1 || got[0].PID != 200 {
		t.Errorf("after Opened: %v", got)
	}
	tab.Replace([]Holder{{Socket: 1, Inode: 12, PID: 300, StartNs: 1e9}})
	if got := tab.Processes(1, 0); len(got) != 1 || got[0].PID != 300 {
		t.Errorf("after Replace: %v", got)
	}
}

// TestClosed: the records of a closing listener come after its close.
func TestClosed(t *testing.T) {
	tab := none(t)
	clock := time.Unix(1000, 0)
	tab.now = func() time.Time { return clock }
	tab.Opened(1, 10, 100, "a")
	tab.Closed(1)
	tab.Replace([]Holder{{Socket: 1, Inode: 10, PID: 101,
		StartNs: 1e9}}) // ran before the close
	if got := tab.Processes(1, 0); len(got) != 1 || got[0].PID != 100 {
		t.Errorf("just closed: %v", got)
	}
	// shutdown() and listen() again: the same socket.
	tab.Opened(1, 10, 100, "a")
	clock = clock.Add(2 * graveTime)
	tab.Replace([]Holder{{Socket: 1, Inode: 10, PID: 100, StartNs: 1e9}})
	if got := tab.Processes(1, 0); len(got) != 1 {
		t.Errorf("listening again: %v", got)
	}
	tab.Closed(1)
	clock = clock.Add(2 * graveTime)
	tab.Replace(nil)
	if got := tab.Processes(1, 0); got != nil {
		t.Errorf("long closed: %v", got)
	}
}

func TestBounded(t *testing.T) {
	tab := none(t)
	for i := range uint64(10 * maxGraves) {
		tab.Opened(i+1, i+1, uint32(i+1), "a")
		tab.Closed(i + 1)
	}
	if n := len(tab.sockets); n > maxGraves+1 {
		t.Errorf("%d closed sockets are kept", n)
	}
	tab = none(t)
	for i := range uint32(maxHolders + 10) {
		tab.Opened(uint64(i%7)+1, uint64(i%7)+1, i+1, "a")
	}
	if tab.holders != maxHolders {
		t.Errorf("%d holders, want %d", tab.holders, maxHolders)
	}
	tab.Replace(nil)
	tab.Replace(nil)
	tab.now = func() time.Time { return time.Now().Add(2 * graveTime) }
	tab.Replace(nil)
	if tab.holders != 0 || len(tab.sockets) != 0 || len(tab.tasks) != 0 {
		t.Errorf("left: %d holders, %d sockets, %d tasks", tab.holders, len(tab.sockets),
			len(tab.tasks))
	}
}

func TestByInode(t *testing.T) {
	tab := none(t)
	tab.Opened(1, 10, 100, "a")
	tab.Replace([]Holder{
		{Inode: 10, PID: 100, Comm: "a", StartNs: 1e9},
		{Inode: 10, PID: 101, Comm: "b", StartNs: 1e9},
		{Inode: 99, PID: 102, Comm: "c", StartNs: 1e9},
	})
	want := []event.Process{
		{PID: 100, Comm: "a", Role: event.RoleListener},
		{PID: 101, Comm: "b", Role: event.RoleHolder},
	}
	if diff := cmp.Diff(want, tab.Processes(1, 0), ignoreStart); diff != "" {
		t.Error(diff)
	}
}

func TestGroup(t *testing.T) {
	tab := none(t)
	tab.Replace([]Holder{
		{Socket: 1, Inode: 1, PID: 100, Comm: "master", StartNs: 1e9},
		{Socket: 2, Inode: 2, PID: 100, Comm: "master", StartNs: 1e9},
		{Socket: 1, Inode: 1, PID: 101, Comm: "w1", StartNs: 2e9},
		{Socket: 2, Inode: 2, PID: 102, Comm: "w2", StartNs: 2e9},
	})
	tab.Accepted(1, 100, 1e9, 1e9)
	tab.Accepted(2, 100, 1e9, 2e9, 3e9)
	tab.Accepted(2, 102, 2e9, 2e9)
	want := []event.Process{
		{PID: 100, Comm: "master", Role: event.RoleAcceptor, LastAcceptMs: ms(1000)},
		{PID: 102, Comm: "w2", Role: event.RoleAcceptor, LastAcceptMs: ms(2000)},
		{PID: 101, Comm: "w1", Role: event.RoleHolder},
	}
	if diff := cmp.Diff(want, tab.ProcessesOfGroup([]uint64{1, 2, 77}, 4e9),
		ignoreStart); diff != "" {
		t.Error(diff)
	}
	if got := tab.ProcessesOfGroup([]uint64{77}, 0); got != nil {
		t.Errorf("unknown group has %v", got)
	}
}

func TestTop(t *testing.T) {
	cg := func(p string) *event.Cgroup { return &event.Cgroup{Path: p} }
	c, _, _ := Top([]event.Process{
		{Role: event.RoleHolder, Cgroup: cg("/holder")},
		{Role: event.RoleAcceptor},
		{Role: event.RoleAcceptor, Cgroup: cg("/acceptor")},
		{Role: event.RoleListener, Cgroup: cg("/listener")},
	})
	if c == nil || c.Path != "/acceptor" {
		t.Errorf("got %v", c)
	}
	// A weaker role's cgroup is not the stronger one's.
	if c, _, _ := Top([]event.Process{{Role: event.RoleListener}, {Role: event.RoleHolder,
		Cgroup: cg("/x")}}); c != nil {
		t.Errorf("got %v", c)
	}
	if c, k, p := Top(nil); c != nil || k != nil || p != nil {
		t.Error("something of nobody")
	}
}

// TestAcceptAfterDrop: the record of a drop is made when the worker that slept
// has already woken and emptied the queue.
func TestAcceptAfterDrop(t *testing.T) {
	var a accepts
	a.add(1_000e6)
	for i := range uint64(200) { // the burst
		a.add(6_000e6 + i*10_000)
	}
	for _, c := range []struct{ at, want uint64 }{
		{5_900e6, 1_000e6},
		{6_000e6, 6_000e6},
		{6_001e6, 6_000e6}, // inside the burst: its first
		{7_000e6, 6_000e6 + 199*10_000},
	} {
		if got, ok := a.before(c.at); !ok || got != c.want {
			t.Errorf("before(%d) = %d, %t, want %d", c.at, got, ok, c.want)
		}
	}
	if _, ok := a.before(999e6); ok {
		t.Error("an accept before the first")
	}
	a.add(5e6) // late news
	if got, _ := a.before(math.MaxUint64); got != 6_000e6+199*10_000 {
		t.Errorf("out of order: %d", got)
	}
	for i := range uint64(100) {
		a.add(10_000e6 + i*slotNs)
	}
	if got, ok := a.before(10_000e6 + 99*slotNs - 1); !ok || got != 10_000e6+98*slotNs {
		t.Errorf("after wrapping: %d, %t", got, ok)
	}
	if _, ok := a.before(10_000e6); ok {
		t.Error("what was overwritten is still known")
	}
}

func TestConcurrent(t *testing.T) {
	tab := none(t)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(300) {
				s := i%5 + 1
				switch (i + g) % 6 {
				case 0:
					tab.Opened(s, s, uint32(i), "x")
				case 1:
					tab.Accepted(s, uint32(i), 1e9, i*1e6)
					_ = tab.Holders(s)
				case 2:
					tab.Closed(s)
				case 3:
					tab.Replace([]Holder{{Socket: s, Inode: s, PID: uint32(i),
						StartNs: 1e9}})
				case 4:
					_, _ = tab.Match(s, Filter{Comm: "x", Cgroup: "/a"})
				}
				for _, p := range tab.Processes(s, i*1e6) {
					_ = p.Comm
				}
				_ = tab.ProcessesOfGroup([]uint64{1, 2, 3}, i*1e6)
			}
		})
	}
	wg.Wait()
}

func BenchmarkProcesses(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		for _, accepting := range []bool{false, true} {
			b.Run(fmt.Sprintf("holders=%d/accepting=%t", n, accepting),
				func(b *testing.B) {
					tab := none(b)
					var holders []Holder
					for i := range n {
						holders = append(holders,
							Holder{Socket: 1, Inode: 1,
								PID: uint32(i + 1), Comm: "nginx", StartNs: 1e9})
					}
					tab.Replace(holders)
					if accepting {
						for _, h := range holders {
							tab.Accepted(1, h.PID, h.StartNs, 1e9)
						}
					}
					b.ReportAllocs()
					for b.Loop() {
						tab.Processes(1, 2e9)
					}
				})
		}
	}
}

func BenchmarkAccepted(b *testing.B) {
	tab := none(b)
	tab.Replace([]Holder{{Socket: 1, Inode: 1, PID: 1, Comm: "nginx", StartNs: 1e9}})
	at := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		at += 1000
		tab.Accepted(1, 1, 1e9, at)
	}
}

func BenchmarkReplace(b *testing.B) {
	tab := none(b)
	var holders []Holder
	for i := range 1000 {
		holders = append(holders, Holder{Socket: uint64(i%100) + 1, Inode: uint64(i%100) +
			1, PID: uint32(i + 1), Comm: "nginx", StartNs: 1e9})
	}
	b.ReportAllocs()
	for b.Loop() {
		tab.Replace(holders)
	}
}

// ignoreStart: tests that say when a process began are about something else.
var ignoreStart = cmpopts.IgnoreFields(event.Process{}, "Start")
