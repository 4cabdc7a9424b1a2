// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/watch"
	"github.com/synspy/synspy/internal/session"
	"github.com/synspy/synspy/internal/thread"
)

// What accept() returns is watched only while nothing leaves a queue. Where every system call pays
// for that, the queue must be full, and it is in windows that are this long and this far apart, of
// those that saw something no more than so many.
const (
	shortageWindow = 200 * time.Millisecond
	shortageEvery  = time.Second
	shortagesSeen  = 3
	// countEvery is how often descriptors are counted meanwhile.
	countEvery = 500 * time.Millisecond
)

// Shortages sees accept() calls that fail.
type Shortages interface {
	Attach() error
	Detach() error
	Costly() bool
	Watch(pids []uint32) error
	Read() ([]watch.Shortage, uint64, error)
	Close() error
}

// shortageWatch finds out, on a goroutine of its own, whether the holders of a queue that stands
// still try to accept and cannot: for want of a descriptor, a file or memory.
type shortageWatch struct {
	sampler *thread.Sampler
	open    func() (Shortages, error)
	log     *slog.Logger
	stop    context.CancelFunc
	done    chan struct{}

	mu       sync.Mutex
	standing []Standing    // what stands still now
	begun    chan struct{} // has something when something does

	// Of the goroutine, until it has ended.
	calls       Shortages // nil before the first standstill, and where it cannot be had
	refused     error     // why it cannot
	attached    time.Time // since when; zero: not now
	next        time.Time // not to be attached again before
	windows     int       // that saw something
	counted     time.Time // when descriptors were
	total       uint64    // calls that had failed
	failures    map[failureKey]uint64
	inodes      map[failureKey]uint64 // of the listeners, resolved when a call was first seen to fail
	descriptors map[uint32]*evidence.Descriptors
	files       evidence.Files
}

// Standing is a listener whose accept queue nothing leaves.
type Standing struct {
	Inode     uint64
	Processes []event.Process
	Full      bool
}

type failureKey struct {
	pid   uint32
	fd    int32
	errno int32
}

func newShortageWatch(sampler *thread.Sampler, open func() (Shortages, error),
	log *slog.Logger) *shortageWatch {
	return &shortageWatch{sampler: sampler, open: open, log: log, stop: func() {},
		done: make(chan struct{}), begun: make(chan struct{}, 1),
		failures: make(map[failureKey]uint64), inodes: make(map[failureKey]uint64),
		descriptors: make(map[uint32]*evidence.Descriptors)}
}

func (w *shortageWatch) begin(ctx context.Context) {
	ctx, w.stop = context.WithCancel(ctx)
	go w.run(ctx)
}

// end waits for what is under way, and frees it. It may be called again.
func (w *shortageWatch) end() {
	w.stop()
	<-w.done
}

// stand takes what stands still now.
func (w *shortageWatch) stand(now []Standing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := len(w.standing) == 0 && len(now) > 0
	if w.standing = now; news {
		select {
		case w.begun <- struct{}{}:
		default:
		}
	}
}

// run sleeps while nothing stands still.
func (w *shortageWatch) run(ctx context.Context) {
	defer close(w.done)
	defer w.finish()
	next := time.NewTimer(session.PollInterval)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.begun:
		case <-next.C:
		}
		w.mu.Lock()
		list := w.standing
		w.mu.Unlock()
		w.tick(time.Now(), list)
		if len(list) > 0 || !w.attached.IsZero() {
			next.Reset(session.PollInterval)
		}
	}
}

func (w *shortageWatch) finish() {
	if w.calls == nil {
		return
	}
	w.detach(time.Now())
	if err := w.calls.Close(); err != nil {
		w.log.Debug("close the watch of accept()", "error", err)
	}
}

func (w *shortageWatch) tick(now time.Time, list []Standing) {
	if !w.attached.IsZero() && (len(list) == 0 || now.Sub(w.attached) >= shortageWindow) {
		w.detach(now)
	}
	if len(list) == 0 {
		return
	}
	if w.attached.IsZero() && !now.Before(w.next) && w.windows < shortagesSeen {
		w.attach(now, list)
	}
	if now.Sub(w.counted) >= countEvery {
		w.counted = now
		w.count(list)
	}
}

// attach begins a window. What is needed for it is loaded at the first one.
func (w *shortageWatch) attach(now time.Time, list []Standing) {
	if w.calls == nil {
		if w.refused != nil {
			return
		}
		if w.calls, w.refused = w.open(); w.refused != nil {
			w.calls = nil
			w.log.Debug("what accept() returns cannot be had", "error", w.refused)
			return
		}
	}
	if w.calls.Costly() && !slices.ContainsFunc(list, func(s Standing) bool { return s.Full }) {
		return
	}
	for _, s := range list {
		if err := w.calls.Watch(pidsOf(s.Processes)); err != nil {
			w.log.Debug("watch what accept() returns", "error", err)
		}
	}
	if err := w.calls.Attach(); err != nil {
		w.log.Debug("watch what accept() returns", "error", err)
		w.next = now.Add(shortageEvery)
		return
	}
	w.attached = now
}

// detach ends the window, and reads what was seen in it.
func (w *shortageWatch) detach(now time.Time) {
	if w.attached.IsZero() {
		return
	}
	if err := w.calls.Detach(); err != nil {
		w.log.Debug("stop watching what accept() returns", "error", err)
	}
	w.attached, w.next = time.Time{}, now
	if w.calls.Costly() {
		w.next = now.Add(shortageEvery - shortageWindow)
	}
	list, uncounted, err := w.calls.Read()
	if err != nil {
		w.log.Debug("read what accept() returned", "error", err)
		return
	}
	total := uncounted
	for _, f := range list {
		key := failureKey{f.PID, f.FD, f.Error}
		if _, known := w.failures[key]; !known && f.FD >= 0 {
			w.inodes[key] = w.sampler.SocketOf(f.PID, f.FD)
		}
		w.failures[key] = f.Count
		total += f.Count
	}
	if total > w.total {
		w.total = total
		w.windows++
	}
}

// count counts descriptors of the processes that stand still.
func (w *shortageWatch) count(list []Standing) {
	for _, s := range list {
		for _, p := range s.Processes[:min(len(s.Processes), maxProcesses)] {
			now, err := w.sampler.DescriptorsOf(p.PID, p.Start)
			if err != nil {
				w.log.Debug("count descriptors", "pid", p.PID, "error", err)
				continue
			}
			d := w.descriptors[p.PID]
			if d == nil {
				d = &evidence.Descriptors{PID: p.PID}
				w.descriptors[p.PID] = d
			}
			d.Readings++
			if now.Full {
				d.Full++
			}
			if now.Full || d.Full == 0 {
				d.Open, d.Limit = now.Open, now.Limit
			}
		}
	}
	if open, most := w.sampler.OpenFiles(); open >= w.files.Open {
		w.files = evidence.Files{Open: open, Max: most}
	}
}

// of returns what was seen for a listener. To be called after end.
func (w *shortageWatch) of(inode uint64,
	processes []event.Process) (
	failures []evidence.AcceptFailure, descriptors []evidence.Descriptors) {
	pids := pidsOf(processes)
	for key, n := range w.failures {
		at := w.inodes[key]
		if !slices.Contains(pids, key.pid) || at != 0 && at != inode {
			continue
		}
		name := unix.ErrnoName(unix.Errno(key.errno))
		i := slices.IndexFunc(failures,
			func(f evidence.AcceptFailure) bool {
				return f.PID == key.pid &&
					f.Errno == name
			})
		if i < 0 {
			i = len(failures)
			failures = append(failures,
				evidence.AcceptFailure{PID: key.pid, Errno: name})
		}
		failures[i].Count += n
	}
	slices.SortFunc(failures,
		func(a, b evidence.AcceptFailure) int { return int(a.PID) - int(b.PID) })
	for _, pid := range pids {
		if d := w.descriptors[pid]; d != nil {
			descriptors = append(descriptors, *d)
		}
	}
	return failures, descriptors
}

func pidsOf(processes []event.Process) (pids []uint32) {
	for _, p := range processes {
		pids = append(pids, p.PID)
	}
	return pids
}
