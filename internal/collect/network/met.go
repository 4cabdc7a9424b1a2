// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/owner"
)

// Bounds of the search.
const (
	maxMet   = 64 // connections of one kind whose processes are looked for
	metEvery = 2 * time.Second
	metWalks = 5 // over all processes in a window, but for the last one
)

// Met finds out who has the connections that SYNs met, while they last: the SYN's client may end
// them at once.
type Met struct {
	open  map[uint64]bool // whose process is not known yet
	known map[uint64][]owner.Holder
	at    time.Time
	walks int
	done  chan metWalk
	// unread is how many processes refused to be read at the last walk.
	unread int
}

// metWalk is what a walk over all processes found.
type metWalk struct {
	found  []owner.Holder
	unread int
}

// NewMet looks for nobody yet.
func NewMet() *Met {
	return &Met{open: make(map[uint64]bool), known: make(map[uint64][]owner.Holder)}
}

// Add takes a connection that a SYN met.
func (w *Met) Add(met *event.Connection) {
	if met != nil && met.Inode != 0 && w.known[met.Inode] == nil && len(w.open) < maxMet {
		w.open[met.Inode] = true
	}
}

// Tick starts a walk over all processes, in a goroutine, if there is somebody to be found; last
// waits for it.
func (w *Met) Tick(last bool) {
	if w.done != nil {
		select {
		case found := <-w.done:
			w.take(found)
		default:
			if !last {
				return
			}
			w.take(<-w.done)
		}
	}
	if len(w.open) == 0 || !last && (w.walks >= metWalks || time.Since(w.at) < metEvery) {
		return
	}
	w.at = time.Now()
	w.walks++
	wanted, done := maps.Clone(w.open), make(chan metWalk, 1)
	w.done = done
	go func() {
		found, unread, err := owner.ScanProc("/proc",
			func(inode uint64) bool { return wanted[inode] })
		if err != nil {
			found = nil
		}
		done <- metWalk{found, unread}
	}()
	if last {
		w.take(<-w.done)
	}
}

func (w *Met) take(walk metWalk) {
	w.done, w.unread = nil, walk.unread
	for _, h := range walk.found {
		w.known[h.Inode] = append(w.known[h.Inode], h)
		delete(w.open, h.Inode)
	}
}

// holders lists the processes that have any of the sockets.
func (w *Met) holders(inodes map[uint64]bool) (list []event.Process) {
	for inode := range inodes {
		for _, h := range w.known[inode] {
			if !slices.ContainsFunc(list,
				func(o event.Process) bool { return o.PID == h.PID }) {
				list = append(list, event.Process{PID: h.PID, Comm: h.Comm})
			}
		}
	}
	slices.SortFunc(list, func(a, b event.Process) int { return cmp.Compare(a.PID, b.PID) })
	return list
}
