// SPDX-License-Identifier: Apache-2.0

package session

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// newTestRefresher has a clock of its own and readings that end when they are told to.
func newTestRefresher(clock *atomic.Uint64, readings *atomic.Int64,
	finish <-chan struct{}) Refresher {
	return NewRefresher(func() error {
		readings.Add(1)
		<-finish
		return nil
	}, clock.Load, slog.New(slog.DiscardHandler))
}

// TestRefreshIsFresh: a reading that nobody waited for to its end says nothing about
// what is dropped later.
func TestRefreshIsFresh(t *testing.T) {
	var clock atomic.Uint64
	var readings atomic.Int64
	finish := make(chan struct{})
	r := newTestRefresher(&clock, &readings, finish)
	clock.Add(1)
	r.RefreshHolders(1, clock.Load(), clock.Load()) // waits in vain
	if r.refresh == nil || readings.Load() != 1 {
		t.Fatalf("%d readings at the first drop", readings.Load())
	}
	ended := r.refresh
	finish <- struct{}{}
	for len(ended) == 0 {
		time.Sleep(time.Millisecond)
	}
	clock.Add(uint64(time.Hour))
	close(finish)
	r.RefreshHolders(1, clock.Load(), clock.Load()) // of the same listener
	r.SettleRefresh()
	if n := readings.Load(); n != 2 {
		t.Errorf("%d readings for drops an hour apart, want 2", n)
	}
	if took := time.Duration(r.refreshTook); took != 0 {
		t.Errorf("the second reading took %v, by the test's clock it took no time", took)
	}
}

// TestRefreshHoldsUpLittle: a reading that does not end holds up the records for a tenth
// of a second, all of them together, and is the only one.
func TestRefreshHoldsUpLittle(t *testing.T) {
	var clock atomic.Uint64
	var readings atomic.Int64
	finish := make(chan struct{})
	r := newTestRefresher(&clock, &readings, finish)
	clock.Add(1)
	waited := 0
	for socket := range uint64(20) {
		began := time.Now()
		r.RefreshHolders(socket, clock.Load(), clock.Load())
		if time.Since(began) > RefreshWait/2 {
			waited++
		}
		clock.Add(uint64(time.Since(began)))
	}
	close(finish)
	r.SettleRefresh()
	if waited == 0 || waited > 10 { // of a loaded machine the odd one
		t.Errorf("%d of 20 records waited, want one", waited)
	}
	if n := readings.Load(); n != 1 {
		t.Errorf("%d readings under way at once", n)
	}
}

// TestRefreshRests: drops that go on cause a reading a second, those of another listener
// one at once, and fewer of either where readings take long.
func TestRefreshRests(t *testing.T) {
	const ms = uint64(time.Millisecond)
	for _, c := range []struct {
		name             string
		took, since      uint64
		dropping, before bool // the listener dropped before; this drop was before the last reading
		want             int64
	}{
		{"dropping", 0, 999 * ms, true, false, 0},
		{"dropping for a second", 0, 1000 * ms, true, false, 1},
		{"dropping, slow", 700 * ms, 1399 * ms, true, false, 0},
		{"dropping, slow, rested", 700 * ms, 1400 * ms, true, false, 1},
		{"first", 5 * ms, 50 * ms, false, false, 1},
		{"first, slow", 6 * ms, 59 * ms, false, false, 0},
		{"first, very slow", 300 * ms, 1000 * ms, false, false, 1},
		{"first, but read since", 5 * ms, 999 * ms, false, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock atomic.Uint64
			var readings atomic.Int64
			finish := make(chan struct{})
			close(finish)
			clock.Store(uint64(time.Hour))
			r := newTestRefresher(&clock, &readings, finish)
			r.refreshTook, r.dropping[1] = c.took, c.dropping
			dropped := clock.Load() + 1
			if c.before {
				dropped = clock.Load() - 1
			}
			clock.Add(c.since)
			r.RefreshHolders(1, dropped, r.now())
			r.SettleRefresh()
			if n := readings.Load(); n != c.want {
				t.Errorf("%d readings, want %d", n, c.want)
			}
		})
	}
}
