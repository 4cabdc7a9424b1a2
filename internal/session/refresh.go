// SPDX-License-Identifier: Apache-2.0

package session

import (
	"log/slog"
	"time"
)

// Holders are read again at most so often, and records wait so long for that, all of
// them together: a reading that takes long must not hold up the stream for as long.
const (
	refreshEvery = time.Second
	RefreshWait  = 100 * time.Millisecond
)

// Refresher has the holders of listeners read again: forks, execs and passed sockets
// leave no event.
type Refresher struct {
	read func() error
	now  func() uint64 // CLOCK_MONOTONIC, ns
	log  *slog.Logger

	refreshed   uint64          // when a reading last began
	refreshTook uint64          // how long the last one took, ns
	refresh     chan readingEnd // of the one under way, nil if none
	dropping    map[uint64]bool // listeners whose holders were read since they first dropped
}

// readingEnd is how a reading went.
type readingEnd struct {
	took uint64 // ns
	err  error
}

// NewRefresher reads holders by read, in the background; now is the boot clock.
func NewRefresher(read func() error, now func() uint64, log *slog.Logger) Refresher {
	return Refresher{read: read, now: now, log: log, refreshed: now(),
		dropping: make(map[uint64]bool)}
}

// RefreshHolders reads the holders again, as a record that came now waits for it. It does so at a
// listener's first drop, and at most once a second while drops go on. First drops
// of other listeners wait their turn where reading takes long.
func (r *Refresher) RefreshHolders(socket, dropped, now uint64) {
	r.pollRefresh()
	if r.refresh == nil {
		rest := max(uint64(refreshEvery), 2*r.refreshTook)
		if !r.dropping[socket] && r.refreshed < dropped {
			rest = min(rest, 10*r.refreshTook)
		}
		if now-r.refreshed < rest {
			return
		}
		if len(r.dropping) > MaxKnown {
			clear(r.dropping)
		}
		r.dropping[socket] = true
		r.beginRefresh(now)
	}
	wait := RefreshWait - time.Duration(now-r.refreshed)
	if wait <= 0 {
		return
	}
	select {
	case end := <-r.refresh:
		r.endRefresh(end)
	case <-time.After(wait):
	}
}

// RefreshUnasked reads the holders again, if it is time, and does not wait for it.
func (r *Refresher) RefreshUnasked() {
	r.pollRefresh()
	now := r.now()
	if r.refresh == nil && now-r.refreshed >= max(uint64(refreshEvery), 10*r.refreshTook) {
		r.beginRefresh(now)
	}
}

func (r *Refresher) beginRefresh(now uint64) {
	r.refreshed = now
	r.refresh = make(chan readingEnd, 1)
	go func(ended chan<- readingEnd) {
		err := r.read()
		ended <- readingEnd{r.now() - now, err}
	}(r.refresh)
}

// pollRefresh ends a reading that is done: what it found may be old, and the next one
// must not be taken for under way.
func (r *Refresher) pollRefresh() {
	select {
	case end := <-r.refresh: // never, where there is none
		r.endRefresh(end)
	default:
	}
}

func (r *Refresher) endRefresh(end readingEnd) {
	r.refresh, r.refreshTook = nil, end.took
	if end.err != nil {
		r.log.Warn("read holders again", "error", end.err)
	}
}

// SettleRefresh waits for a reading that is still under way.
func (r *Refresher) SettleRefresh() {
	if r.refresh != nil {
		r.endRefresh(<-r.refresh)
	}
}
