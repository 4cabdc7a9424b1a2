// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"sync"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
)

// CalmAfter is how long after the last sign of trouble threads are sampled closely: a client that
// tries again does so within some seconds.
const CalmAfter = 10 * time.Second

// attention is when threads are sampled closely, which costs the processes sampled: from when an
// accept queue is half full, drops, or is left alone, until a while after. Its methods may be
// called from any goroutine.
type attention struct {
	start time.Time
	woken chan struct{} // has something when it begins

	mu    sync.Mutex
	until time.Time // zero: never yet
	spans []evidence.Span
}

func newAttention(start time.Time) *attention {
	return &attention{start: start, woken: make(chan struct{}, 1)}
}

// alarm is a sign of trouble. It reports whether it was calm until now: the sampler is then to be
// woken, once it is told what to sample.
func (a *attention) alarm(now time.Time) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	news = !now.Before(a.until)
	a.until = now.Add(CalmAfter)
	if news {
		a.spans = append(a.spans, evidence.Span{FromMs: a.offset(now)})
	}
	a.spans[len(a.spans)-1].ToMs = a.offset(a.until)
	return news
}

// wake has the sampler begin at once.
func (a *attention) wake() {
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// closely reports whether threads are to be sampled closely.
func (a *attention) closely(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.until)
}

// spent lists when they were, until an offset.
func (a *attention) spent(end uint32) (spans []evidence.Span) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.spans {
		spans = append(spans, evidence.Span{FromMs: s.FromMs, ToMs: min(s.ToMs, end)})
	}
	return spans
}

func (a *attention) offset(at time.Time) uint32 {
	return uint32(max(at.Sub(a.start), 0).Milliseconds())
}
