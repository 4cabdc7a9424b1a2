// SPDX-License-Identifier: Apache-2.0

package thread

import "slices"

// maxTurns is of how many processes it is remembered which threads were read.
const maxTurns = 1024

// turn is where the reading of a process's threads goes on that has too many, and those worth
// reading each time.
type turn struct {
	next int
	keep []uint32 // ascending
}

// choose picks the threads to be read: all, or those that serve a listener or ran, and of the
// others by turns as many as there is room for.
func (s *Sampler) choose(pid uint32, tids []uint32) []uint32 {
	if len(tids) <= maxThreadsRead {
		return tids
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.turns[pid]
	chosen := slices.DeleteFunc(slices.Clone(t.keep), func(tid uint32) bool {
		_, there := slices.BinarySearch(tids, tid)
		return !there
	})
	for range tids {
		if len(chosen) == maxThreadsRead {
			break
		}
		tid := tids[t.next%len(tids)]
		t.next = (t.next + 1) % len(tids)
		if _, kept := slices.BinarySearch(t.keep, tid); !kept {
			chosen = append(chosen, tid)
		}
	}
	s.turns[pid] = t
	return chosen
}

// maxServed is how many listeners a thread is remembered to have waited for.
const maxServed = 8

// remember notes what each thread did, whom it serves, and which of a process with too many are to
// be read again.
func (s *Sampler) remember(pid uint32, sample *Sample, listener uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keep []uint32
	for i := range sample.threads {
		t := &sample.threads[i]
		inode := t.accept
		if t.epoll.has(listener) {
			inode = listener
		}
		if inode != 0 && len(t.ran.serve) < maxServed &&
			!slices.Contains(t.ran.serve, inode) {
			t.ran.serve = append(slices.Clip(t.ran.serve), inode)
		}
		s.threads[threadID{t.TID, t.start}] = t.ran
		if len(keep) < maxThreadsRead/2 && (len(t.ran.serve) > 0 || t.ran.moved) {
			keep = append(keep, t.TID)
		}
	}
	if sample.cut {
		slices.Sort(keep)
		s.turns[pid] = turn{s.turns[pid].next, keep}
	}
}
