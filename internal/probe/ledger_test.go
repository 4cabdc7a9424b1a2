// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/kernel/kerneltest"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/probe/plan"
	"github.com/synspy/synspy/internal/probe/probetest"
)

// TestMissedEvents drops SYNs where no event is seen, by a probe that attaches nothing: the
// ledger tells them as unattributed, and those from before the start not at all.
func TestMissedEvents(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ns := kerneltest.NewNetNS(t)
	drop := fullQueue(t, ns)
	here, err := facts.Gather("")
	must(err)
	nothing := func(hook *plan.Hook, name string, program *ebpf.Program) (link.Link, error) {
		if hook.Backend == facts.Iterator {
			return load.AttachProgram(hook, name, program)
		}
		return probetest.FakeLink{}, nil
	}
	p, err := openBy(nothing, here, facts.Auto, load.Config{Rate: 100},
		slog.New(slog.DiscardHandler))
	must(err)
	defer p.Close()
	_, found := holdersHere(t, p)
	drop(2)
	must(p.Start(found, func(uint64) bool { return false }))
	const lost = uint64(3)
	drop(lost)
	must(p.Stop(func(*message.Message) error { return nil }))
	seen := 0
	for _, row := range p.Balance() {
		if row.NetNS != ns.Inode {
			continue
		}
		seen++
		died := row.Counter == event.CounterListenDrops.String() ||
			row.Counter == event.CounterListenOverflows.String()
		if died && row.Kernel != lost || row.Unattributed != row.Kernel ||
			row.Synspy != 0 || !row.Balanced() {
			t.Errorf("%+v, want all of it unattributed", row)
		}
	}
	if seen != int(event.NumCounters) {
		t.Errorf("%d rows of this namespace, want %d", seen, event.NumCounters)
	}
}

// TestFullTables has more namespaces than there is room for, before the start and after: the one that is named keeps its
// rows and is told to the unit, and what moved in the others is in the row of others.
func TestFullTables(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	here, err := facts.Gather("")
	must(err)
	here.FewRows = &facts.Sizes{Late: here.LateRows, Openings: 8, Bases: 64, Tallies: 64,
		Withheld: 64, Counts: 64, Arrived: 64,
		Accepts: 64, Wanted: 1}
	const each, named = uint64(3), uint64(5)
	type full struct {
		inode uint64
		drop  func(uint64)
	}
	another := func() full {
		ns := kerneltest.NewNetNS(t)
		return full{ns.Inode, fullQueue(t, ns)}
	}
	var crowd []full
	for range 10 {
		crowd = append(crowd, another())
	}
	kept := another()
	p, err := Open(here, facts.Auto, load.Config{Rate: 100}, slog.New(slog.DiscardHandler))
	must(err)
	defer p.Close()
	_, found := holdersHere(t, p)
	must(p.Start(found, func(netns uint64) bool { return netns == kept.inode }))
	for range 3 {
		crowd = append(crowd, another())
	}
	for _, c := range crowd {
		c.drop(each)
	}
	kept.drop(named)
	must(p.Retire()) // no one is gone
	must(p.Stop(func(*message.Message) error { return nil }))

	missed, err := p.Missed()
	must(err)
	if missed.Untracked == 0 || len(p.Unfollowed()) == 0 || p.Unfollowed()[kept.inode] {
		t.Errorf("%d untracked, in %v", missed.Untracked, p.Unfollowed())
	}
	mine := make(map[uint64]bool)
	for _, c := range crowd {
		mine[c.inode] = true
	}
	var sum uint64
	for _, row := range p.Balance() {
		if row.Counter != event.CounterListenOverflows.String() {
			continue
		}
		if row.Synspy+row.Unattributed != row.Kernel && !row.Gone {
			t.Errorf("%+v does not balance", row)
		}
		switch {
		case row.NetNS == kept.inode:
			if row.Kernel != named || row.Synspy+row.Unattributed != named {
				t.Errorf("%+v, want %d", row, named)
			}
		case row.Others, mine[row.NetNS]:
			sum += row.Kernel
		}
	}
	if want := uint64(len(crowd)) * each; sum < want { // others of this machine may be among them
		t.Errorf("%d told of the crowd, want %d", sum, want)
	}
}

// fullQueue makes a listener whose accept queue is full, in a namespace, and returns what
// has so many SYNs dropped there.
func fullQueue(t *testing.T, ns kerneltest.NetNS) (drop func(n uint64)) {
	t.Helper()
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 8080}
	socket := func() (int, error) {
		return unix.Socket(unix.AF_INET,
			unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	connect := func() (int, error) {
		fd, err := socket()
		if err == nil {
			err = unix.Connect(fd, at)
		}
		if errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
		return fd, err
	}
	ns.Do(t, func() error {
		listener, err := socket()
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(listener) })
		device, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		device.SetUint16(unix.IFF_UP)
		err = errors.Join(unix.IoctlIfreq(listener, unix.SIOCSIFFLAGS, device),
			unix.Bind(listener, at), unix.Listen(listener, 0))
		if err != nil {
			return err
		}
		queued, err := connect()
		t.Cleanup(func() { unix.Close(queued) })
		return err
	})
	var dropped uint64
	return func(n uint64) {
		t.Helper()
		dropped += n
		ns.Do(t, func() error {
			for range n {
				fd, err := connect()
				if err != nil {
					return err
				}
				defer unix.Close(fd) // before it sends its SYN again, a second later
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				now, err := kernel.NewSNMPReader().Enter(ns.Path, ns.Inode)
				if err != nil || now["ListenDrops"] == dropped {
					return err
				}
				if time.Now().After(deadline) {
					return fmt.Errorf("%d drops, want %d", now["ListenDrops"],
						dropped)
				}
			}
		})
	}
}
