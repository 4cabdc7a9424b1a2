// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/diagnose/evidence"
)

// TestAttention: threads are looked at closely from the first sign of trouble until a while after
// the last, and that is told.
func TestAttention(t *testing.T) {
	start := time.Now()
	a := newAttention(start)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	if a.closely(at(0)) || a.spent(1000) != nil {
		t.Error("before any trouble it is looked closely")
	}
	if !a.alarm(at(1000)) || a.alarm(at(2000)) || !a.closely(at(11_999)) ||
		a.closely(at(12_000)) {
		t.Error("it is not looked closely from 1 s to 12 s")
	}
	if !a.alarm(at(20_000)) {
		t.Error("trouble after a calm is no news")
	}
	want := []evidence.Span{{FromMs: 1000, ToMs: 12_000}, {FromMs: 20_000, ToMs: 25_000}}
	if diff := cmp.Diff(want, a.spent(25_000)); diff != "" {
		t.Error(diff)
	}
	a.wake()
	a.wake() // nobody has looked yet, and nobody waits for it
	select {
	case <-a.woken:
	default:
		t.Error("nobody is roused")
	}
}

// TestAlarm: the first sign of trouble says whose threads come first, and then wakes the sampler.
func TestAlarm(t *testing.T) {
	w := &Watch{attention: newAttention(time.Now())}
	followed := 0
	for range 2 {
		w.Alarm(func() {
			if followed++; len(w.attention.woken) > 0 {
				t.Error("it is woken before it knows whom to sample")
			}
		})
	}
	if followed != 1 || len(w.attention.woken) != 1 {
		t.Errorf("followed %d times, woken %d times, want once", followed,
			len(w.attention.woken))
	}
}

// TestPeriodOf: looks keep their pace, and their part of a CPU, whatever they have to look at.
func TestPeriodOf(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		used, every time.Duration
		closely     bool
		want        time.Duration
	}{
		{1 * ms, threadsEvery, true, 100 * ms}, {80 * ms, threadsEvery, true, 160 * ms},
		{1 * ms, threadsEvery, false, 500 * ms}, {40 * ms, threadsEvery, false,
			4000 * ms}, {1 * ms, time.Second, false, 1000 * ms},
	} {
		if got := periodOf(c.used, c.every, c.closely); got != c.want {
			t.Errorf("after %v of every %v, closely %t: %v, want %v", c.used, c.every,
				c.closely, got, c.want)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime()
	for end := time.Now().Add(20 * ms); time.Now().Before(end); { // on a CPU
	}
	if before == 0 || threadTime() < before {
		t.Error("the CPU time of a thread is not known")
	}
}
