// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel/kerneltest"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/probe/load"
)

// TestForget has listeners come and go, forgets them, and finds what reached them in the sums, and in no table of ours.
func TestForget(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const many = 500
	here, err := facts.Gather("")
	must(err)
	ns := kerneltest.NewNetNS(t)
	fullQueue(t, ns) // brings lo up
	p, err := Open(here, facts.Auto, load.Config{Filter: load.Filter{NetNS: ns.Inode}, Rate: 1,
		Accepts: true}, slog.New(slog.DiscardHandler))
	must(err)
	defer p.Close()
	_, found := holdersHere(t, p)
	must(p.Start(found, func(uint64) bool { return true }))
	ns.Do(t, func() (err error) {
		for range many {
			err = errors.Join(err, connectOnce())
		}
		return err
	})

	arrivals := func() (sockets []uint64, syns uint64) {
		t.Helper()
		list, _, err := p.Arrivals()
		must(err)
		for _, a := range list {
			sockets = append(sockets, a.Socket)
			syns += a.Syn
		}
		return sockets, syns
	}
	sockets, before := arrivals()
	if before < many {
		t.Fatalf("%d SYNs, want %d at least", before, many)
	}
	still, err := p.Forget(sockets, func(listener.Arrivals) bool { return true })
	must(err)
	_, after := arrivals()
	past := p.Past()
	if after+past.Syn != before || past.Listeners+uint64(len(still)) != uint64(len(sockets)) {
		t.Errorf("%d SYNs to %d listeners: %d to %d forgotten ones, %d to %d others",
			before, len(sockets), past.Syn, past.Listeners, after, len(still))
	}
	// How many are left depends on the sockets: 5.10 gives their memory to the next listener at once.
	if past.Listeners == 0 {
		t.Errorf("%d of %d forgotten", past.Listeners, len(sockets))
	}
	if p.SeesEntries() && (past.Accepting == nil || past.Accepting.Arrivals != past.Syn) {
		t.Errorf("%+v of %d connections", past.Accepting, past.Syn)
	}
	if len(p.Departed)+len(p.Side.Departed) > 0 {
		t.Errorf("%d and %d listeners kept", len(p.Departed), len(p.Side.Departed))
	}

	// Of those that do not count nothing is left.
	ns.Do(t, connectOnce)
	sockets, _ = arrivals()
	_, err = p.Forget(sockets, func(listener.Arrivals) bool { return false })
	must(err)
	if now := p.Past(); now.Syn != past.Syn || now.Listeners != past.Listeners ||
		len(p.Departed) > 0 {
		t.Errorf("%+v, want %+v", now, past)
	}
}

// connectOnce opens a listener, connects to it and closes both.
func connectOnce() error {
	socket := func() (int,
		error) {
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	listener, err := socket()
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		unix.Listen(listener, 1)); err != nil {
		return err
	}
	at, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	client, err := socket()
	if err != nil {
		return err
	}
	defer unix.Close(client)
	return unix.Connect(client, at)
}
