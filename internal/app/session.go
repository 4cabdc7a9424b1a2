// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/owner/containers"
	"github.com/synspy/synspy/internal/probe"
)

// Watch says what to watch and how.
type Watch struct {
	Filter   probe.Filter
	Owner    owner.Filter
	Cookies  bool
	Rate     uint32 // records per second, listener and cause; 0: all
	RingSize uint32 // bytes
	Capture  bool   // records carry their packets
	Accepts  bool   // who accepts from which listener, and when
	Backend  string
	BTF      string        // file; empty for the kernel's own
	Program  event.Program // this synspy, as records of its run name it
}

// ErrUnable wraps errors that mean: this kernel or these privileges can't.
var ErrUnable = errors.New("unable to trace here")

// session is one run of the probe with the tables that name what it sees.
type session struct {
	watch     Watch
	log       *slog.Logger
	probe     *probe.Probe
	owners    *owner.Table
	names     *containers.Names
	listeners *listeners
	shared    *sharedLedger
	judging   sync.Mutex // verdicts are given by one reading of the tables at a time
	judged    uint64     // what the owners' Renamed was at the last judging for new names
	sampling  *sampling

	refresher
	acceptsRead map[uint64]uint64 // when a listener's last accepts were read, CLOCK_MONOTONIC, ns

	origin  event.Origin
	clock   time.Duration // to be added to CLOCK_MONOTONIC for the wall clock
	started time.Time
}

// open attaches and seeds: when it returns, everything is counted.
func open(watch Watch, log *slog.Logger) (*session, error) {
	began := time.Now()
	if err := enoughFiles(filesToLoad); err != nil {
		return nil, err
	}
	shared := beginShared(watch.Filter.NetNS, log)
	facts, err := probe.Gather(watch.BTF)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnable, err)
	}
	log.Debug("gathered facts", "took", time.Since(began))
	watch.Filter.ByOwner = watch.Owner != owner.Filter{}
	p, err := probe.Open(facts, watch.Backend, probe.Config{Filter: watch.Filter, Cookies: watch.Cookies,
		Rate: watch.Rate, RingSize: watch.RingSize, Capture: watch.Capture, Accepts: watch.Accepts}, log)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnable, err)
	}
	s := &session{watch: watch, log: log, probe: p, owners: owner.New("/proc", log),
		names: askRuntimes(log), listeners: newListeners(watch.Filter), clock: kernel.WallClock(), sampling: newSampling(log),
		acceptsRead: make(map[uint64]uint64), shared: shared, origin: newOrigin(watch.Program)}
	s.refresher = newRefresher(func() error {
		_, err := s.readHolders()
		return err
	}, kernel.Monotonic, log)
	s.owners.AskRuntimes(s.names)
	holders, err := s.readHolders()
	if err == nil {
		err = s.awaitNames()
	}
	if err == nil {
		shared.open()
		err = p.Start(holders, s.listeners.matches)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close(), s.names.Close())
	}
	s.started = time.Now()
	return s, nil
}

// ready is the record that says what was attached.
func (s *session) ready() event.Ready {
	plan := s.probe.Plan()
	return event.Ready{Header: event.Head("ready"), Origin: s.origin, Backend: plan.Backend, Kernel: kernel.Release(),
		Hooks: plan.Events()}
}

// readHolders asks who holds which listener and tells the tables.
func (s *session) readHolders() (probe.Holders, error) {
	holders, err := s.probe.Holders()
	if errors.Is(err, probe.ErrNoIterator) {
		return holders, s.scanHolders()
	}
	if err != nil {
		return holders, fmt.Errorf("list holders of listeners: %w", err)
	}
	s.listeners.beginList()
	for i := range holders.List {
		s.listeners.add(holders.List[i].Listener)
	}
	s.listeners.endList()
	s.owners.ReplaceAll(func(yield func(owner.Holder) bool) {
		for i := range holders.List {
			h := &holders.List[i]
			if !yield(owner.Holder{Socket: h.Listener.Socket, Inode: h.Listener.Inode, PID: h.PID,
				Comm: h.Comm, StartNs: h.Start, Accepted: h.Accepted}) {
				return
			}
		}
	})
	return holders, s.judge()
}

// scanHolders finds the holders of the listeners that are known so far by reading
// /proc: slower, and it can name no listener that neither opened nor dropped yet.
func (s *session) scanHolders() error {
	sockets := s.listeners.inodes()
	holders, unreadable, err := owner.ScanProc("/proc", func(inode uint64) bool { return sockets[inode] != 0 })
	if err != nil {
		return fmt.Errorf("list holders of listeners: %w", err)
	}
	if unreadable > 0 {
		s.log.Debug("read holders", "processes not readable", unreadable)
	}
	for i := range holders {
		holders[i].Socket = sockets[holders[i].Inode]
	}
	s.owners.Replace(holders)
	return s.judge()
}

// judge tells the kernel side which listeners the owner filters let through. It is
// told nothing of those that hang on a name which may still come: their records
// come to us.
func (s *session) judge() error {
	if (s.watch.Owner == owner.Filter{}) {
		return nil
	}
	s.judging.Lock()
	defer s.judging.Unlock()
	for _, socket := range s.listeners.sockets() {
		wanted, pending := s.owners.Match(socket, s.watch.Owner)
		if pending || !s.listeners.want(socket, wanted) {
			continue // as before
		}
		if err := s.probe.Want(socket, wanted); err != nil {
			return err
		}
	}
	return nil
}

// awaitNames gives runtimes a moment to name what a filter asks for by name:
// whether nothing matches yet is soon to be said.
func (s *session) awaitNames() error {
	if !s.watch.Owner.ByNames() {
		return nil
	}
	s.owners.AwaitNames(refreshWait, s.listeners.sockets()...)
	return s.rejudgeRenamed()
}

// rejudgeRenamed judges again when containers have got names.
func (s *session) rejudgeRenamed() error {
	if now := s.owners.Renamed(); s.judged != now {
		s.judged = now
		return s.judge()
	}
	return nil
}

// rejudge reads the holders again without waiting for it. The kernel side is silent
// about listeners that an owner filter keeps out, so no record would tell
// that a process which the filter asks for has one of them now.
func (s *session) rejudge() {
	if !s.watch.Filter.ByOwner {
		return
	}
	s.refreshUnasked()
}

// forgetTimes ends what is kept of when a listener that closed was looked at.
func (s *session) forgetTimes(socket uint64) {
	delete(s.dropping, socket)
	delete(s.acceptsRead, socket)
	s.sampling.forget(socket)
}

func (s *session) close() error {
	s.settleRefresh()
	return errors.Join(s.probe.Close(), s.names.Close())
}
