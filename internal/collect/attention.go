// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"sync"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
)

// calmAfter is how long after the last sign of trouble threads are looked at closely. Who comes
// again does so within some seconds.
const calmAfter = 10 * time.Second

// attention is when threads are looked at closely, which costs whom it looks at: from when an
// accept queue is half full, drops, or is left alone, until a while after. Its methods may be
// called from any goroutine.
type attention struct {
	start  time.Time
	roused chan struct{} // has something when it begins

	mu    sync.Mutex
	until time.Time // zero: never yet
	spans []evidence.Span
}

func newAttention(start time.Time) *attention {
	return &attention{start: start, roused: make(chan struct{}, 1)}
}

// alarm is a sign of trouble. It reports whether it was calm until now: whoever looks is then to be
// roused, once he knows at whom.
func (a *attention) alarm(now time.Time) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	news = !now.Before(a.until)
	a.until = now.Add(calmAfter)
	if news {
		a.spans = append(a.spans, evidence.Span{FromMs: a.offset(now)})
	}
	a.spans[len(a.spans)-1].ToMs = a.offset(a.until)
	return news
}

// rouse has whoever looks begin at once.
func (a *attention) rouse() {
	select {
	case a.roused <- struct{}{}:
	default:
	}
}

// close reports whether threads are to be looked at closely.
func (a *attention) close(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.until)
}

// told lists when they were, until an offset.
func (a *attention) told(end uint32) (spans []evidence.Span) {
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
