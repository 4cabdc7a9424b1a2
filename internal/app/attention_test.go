package app

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synspy/synspy/internal/diagnose"
)

// TestAttention: threads are looked at closely from the first sign of trouble until a while after the last, and that is told.
func TestAttention(t *testing.T) {
	start := time.Now()
	a := newAttention(start)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	if a.close(at(0)) || a.told(1000) != nil {
		t.Error("before any trouble it is looked closely")
	}
	if !a.alarm(at(1000)) || a.alarm(at(2000)) || !a.close(at(11_999)) || a.close(at(12_000)) {
		t.Error("it is not looked closely from 1 s to 12 s")
	}
	if !a.alarm(at(20_000)) {
		t.Error("trouble after a calm is no news")
	}
	want := []diagnose.Span{{FromMs: 1000, ToMs: 12_000}, {FromMs: 20_000, ToMs: 25_000}}
	if diff := cmp.Diff(want, a.told(25_000)); diff != "" {
		t.Error(diff)
	}
	a.rouse()
	a.rouse() // nobody has looked yet, and nobody waits for it
	select {
	case <-a.roused:
	default:
		t.Error("nobody is roused")
	}
}

// TestPauseAfter: looks keep their pace, and their part of the time, whatever they have to look at.
func TestPauseAfter(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		took, every time.Duration
		closely     bool
		want        time.Duration
	}{
		{1 * ms, threadsEvery, true, 99 * ms}, {80 * ms, threadsEvery, true, 80 * ms},
		{1 * ms, threadsEvery, false, 499 * ms}, {40 * ms, threadsEvery, false, 3960 * ms}, {1 * ms, time.Second, false, 999 * ms},
	} {
		if got := pauseAfter(c.took, c.every, c.closely); got != c.want {
			t.Errorf("after %v of every %v, closely %t: %v, want %v", c.took, c.every, c.closely, got, c.want)
		}
	}
}
