// SPDX-License-Identifier: Apache-2.0

// Package session is a probe with what every watch of it needs: the listeners that are asked about,
// who holds them, and what their threads did.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/owner"
	"github.com/synspy/synspy/internal/owner/containers"
	"github.com/synspy/synspy/internal/probe"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/load"
)

// Watch says what to watch and how.
type Watch struct {
	Filter   load.Filter
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

// Session is one run of the probe with the tables that name what it sees.
type Session struct {
	watch     Watch
	Log       *slog.Logger
	Probe     *probe.Probe
	Owners    *owner.Table
	names     *containers.Names
	Listeners *Listeners
	Shared    *sharedLedger
	judging   sync.Mutex // verdicts are given by one reading of the tables at a time
	judged    uint64     // what the owners' Renamed was at the last judging for new names
	Sampling  *sampling

	Refresher
	AcceptsRead map[uint64]uint64 // when a listener's last accepts were read, CLOCK_MONOTONIC, ns

	Origin  event.Origin
	Clock   time.Duration // to be added to CLOCK_MONOTONIC for the wall clock
	Started time.Time
}

// open attaches and seeds: when it returns, everything is counted.
func open(watch Watch, log *slog.Logger) (*Session, error) {
	began := time.Now()
	if err := cli.EnoughFiles(cli.FilesToLoad); err != nil {
		return nil, err
	}
	shared := beginShared(watch.Filter.NetNS, log)
	facts, err := facts.Gather(watch.BTF)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cli.ErrUnable, err)
	}
	log.Debug("gathered facts", "took", time.Since(began))
	watch.Filter.ByOwner = watch.Owner != owner.Filter{}
	p, err := probe.Open(facts, watch.Backend,
		load.Config{Filter: watch.Filter, Cookies: watch.Cookies,
			Rate: watch.Rate, RingSize: watch.RingSize, Capture: watch.Capture, Accepts: watch.Accepts}, log)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cli.ErrUnable, err)
	}
	s := &Session{watch: watch, Log: log, Probe: p, Owners: owner.New("/proc", log),
		names: AskRuntimes(log), Listeners: NewListeners(watch.Filter),
		Clock: kernel.WallClock(), Sampling: NewSampling(log),
		AcceptsRead: make(map[uint64]uint64), Shared: shared, Origin: newOrigin(
			watch.Program)}
	s.Refresher = NewRefresher(func() error {
		_, err := s.readHolders()
		return err
	}, kernel.Monotonic, log)
	s.Owners.AskRuntimes(s.names)
	found, err := s.readHolders()
	if err == nil {
		err = s.awaitNames()
	}
	if err == nil {
		shared.open()
		asked := s.Listeners.spaces()
		err = p.Start(found, func(netns uint64) bool { return asked[netns] })
	}
	if err != nil {
		return nil, errors.Join(err, p.Close(), s.names.Close())
	}
	s.Started = time.Now()
	return s, nil
}

// Ready is the record that says what was attached.
func (s *Session) Ready() event.Ready {
	plan := s.Probe.Plan()
	return event.Ready{Header: event.Head("ready"), Origin: s.Origin, Backend: plan.Backend,
		Kernel: kernel.Release(),
		Hooks:  plan.Events()}
}

// readHolders asks who holds which listener and tells the tables.
func (s *Session) readHolders() (found *holders.Found, err error) {
	s.Listeners.beginList()
	err = s.Owners.ReplaceBy(func(enter func(owner.Holder)) (err error) {
		found, err = s.Probe.Walk(func(h *holders.Holder) {
			s.Listeners.Add(h.Listener)
			enter(owner.Holder{Socket: h.Listener.Socket, Inode: h.Listener.Inode,
				PID: h.PID, Comm: h.Comm, StartNs: h.Start})
		}, func(socket uint64, pid uint32, start uint64) {
			s.Owners.Accepted(socket, pid, start)
		})
		return err
	})
	if errors.Is(err, holders.ErrNoIterator) {
		return found, s.scanHolders()
	}
	if err != nil {
		return found, fmt.Errorf("list holders of listeners: %w", err)
	}
	s.Listeners.endList()
	return found, s.Judge()
}

// scanHolders finds the holders of the listeners that are known so far by reading
// /proc: slower, and it can name no listener that neither opened nor dropped yet.
func (s *Session) scanHolders() error {
	sockets := s.Listeners.Inodes()
	holders, unreadable, err := owner.ScanProc("/proc",
		func(inode uint64) bool { return sockets[inode] != 0 })
	if err != nil {
		return fmt.Errorf("list holders of listeners: %w", err)
	}
	if unreadable > 0 {
		s.Log.Debug("read holders", "processes not readable", unreadable)
	}
	for i := range holders {
		holders[i].Socket = sockets[holders[i].Inode]
	}
	s.Owners.Replace(holders)
	return s.Judge()
}

// Judge tells the kernel side which listeners the owner filters let through. It is
// told nothing of those that hang on a name which may still come: their records
// come to us.
func (s *Session) Judge() error {
	if (s.watch.Owner == owner.Filter{}) {
		return nil
	}
	s.judging.Lock()
	defer s.judging.Unlock()
	for _, socket := range s.Listeners.sockets() {
		wanted, pending := s.Owners.Match(socket, s.watch.Owner)
		if pending || !s.Listeners.want(socket, wanted) {
			continue // as before
		}
		if err := s.Probe.Want(socket, wanted); err != nil {
			return err
		}
	}
	return nil
}

// awaitNames gives runtimes a moment to name what a filter asks for by name:
// whether nothing matches yet is soon to be said.
func (s *Session) awaitNames() error {
	if !s.watch.Owner.ByNames() {
		return nil
	}
	s.Owners.AwaitNames(RefreshWait, s.Listeners.sockets()...)
	return s.RejudgeRenamed()
}

// RejudgeRenamed judges again when containers have got names.
func (s *Session) RejudgeRenamed() error {
	if now := s.Owners.Renamed(); s.judged != now {
		s.judged = now
		return s.Judge()
	}
	return nil
}

// Rejudge reads the holders again without waiting for it. The kernel side is silent
// about listeners that an owner filter keeps out, so no record would tell
// that a process which the filter asks for has one of them now.
func (s *Session) Rejudge() {
	if !s.watch.Filter.ByOwner {
		return
	}
	s.RefreshUnasked()
}

// ForgetTimes ends what is kept of when a listener that closed was looked at.
func (s *Session) ForgetTimes(socket uint64) {
	delete(s.dropping, socket)
	delete(s.AcceptsRead, socket)
	s.Sampling.forget(socket)
}

// Close ends it, and leaves nothing behind.
func (s *Session) Close() error {
	s.SettleRefresh()
	return errors.Join(s.Probe.Close(), s.names.Close())
}

// PollInterval is how often queues are looked at: as often as a trace ticks.
const PollInterval = 50 * time.Millisecond

// ErrInterrupted says that a signal came before anything was watched: there is no
// stream to end cleanly.
var ErrInterrupted = errors.New("interrupted before it began to watch")

// OpenUntil is open, but does not outlast the context: loading and attaching may
// take seconds. What it was doing is undone in the background.
func OpenUntil(ctx context.Context, watch Watch, log *slog.Logger) (*Session, error) {
	type opened struct {
		session *Session
		err     error
	}
	done := make(chan opened, 1)
	go func() {
		s, err := open(watch, log)
		done <- opened{s, err}
	}()
	select {
	case o := <-done:
		if o.err == nil && ctx.Err() != nil {
			return nil, errors.Join(ErrInterrupted, o.session.Close())
		}
		return o.session, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.err == nil {
				_ = o.session.Close() // nothing is lost with it
			}
		}()
		return nil, ErrInterrupted
	}
}
