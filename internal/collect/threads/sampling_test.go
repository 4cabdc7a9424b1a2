// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// TestThrottlingAddedUp: whatever of a cgroup's processes are looked at, and however often, its
// counters grew by what they grew.
func TestThrottlingAddedUp(t *testing.T) {
	w := newSampling(newAttention(time.Now()), nil, time.Minute,
		slog.New(slog.DiscardHandler))
	look := func(pid, at uint32, periods, throttled, ns uint64) {
		quota, during := uint64(20000), uint64(100)
		w.takeCPU(pid, at, &event.CPU{Cgroup: "/a", QuotaUs: &quota, PeriodUs: &quota,
			Periods: &periods, Throttled: &throttled, ThrottledNs: &ns,
			DuringMs: &during, PeriodsDuring: &periods, ThrottledDuring: &throttled, ThrottledNsDuring: &ns})
	}
	for pid := range uint32(8) {
		look(pid, 0, 1000, 100, 5e9)
	}
	for pid := range uint32(8) {
		look(pid, 100+pid, 1001, 101, 5.05e9)
	}
	look(0, 200, 1002, 101, 5.05e9)
	look(0, 300, 1003, 102, 5.06e9)
	look(0, 400, 1, 0, 0) // another cgroup took the path
	got := w.cpus["/a"].CPU
	if got.Periods != 3 || got.Throttled != 2 || got.ThrottledMs != 60 {
		t.Errorf("%d periods, %d of them throttled, for %v ms, want 3, 2, 60", got.Periods,
			got.Throttled, got.ThrottledMs)
	}
	if want := []evidence.Span{{FromMs: 0, ToMs: 100},
		{FromMs: 200, ToMs: 300}}; len(got.Spans) != 2 || got.Spans[0] != want[0] ||
		got.Spans[1] != want[1] {
		t.Errorf("throttled in %v, want %v", got.Spans, want)
	}
}

// TestSamplesReachToTheEnd: a long window is looked at less often, and to its end.
func TestSamplesReachToTheEnd(t *testing.T) {
	for _, c := range []struct{ window, want time.Duration }{
		{30 * time.Second, threadsEvery}, {2 * time.Minute,
			threadsEvery}, {10 * time.Minute, 500 * time.Millisecond},
	} {
		if got := newSampling(newAttention(time.Now()), nil, c.window,
			slog.New(slog.DiscardHandler)).every; got != c.want {
			t.Errorf("of %v: every %v, want %v", c.window, got, c.want)
		}
	}
}

// TestThreadsOfTwoListeners: one process, two listeners: its threads ran as long for both.
func TestThreadsOfTwoListeners(t *testing.T) {
	pid := startServer(t, "spin")
	w := newSampling(newAttention(time.Now()), nil, time.Second,
		slog.New(slog.DiscardHandler))
	w.watch([]target{{pid, 0, 1}, {pid, 0, 2}})
	w.begin(context.Background())
	time.Sleep(time.Second)
	w.end()
	w.end() // at most once too often
	one, _, _ := w.of(1, nil)
	two, _, _ := w.of(2, nil)
	if len(one) == 0 || len(one) != len(two) {
		t.Fatalf("%d threads of one listener, %d of the other", len(one), len(two))
	}
	var ran float64
	for i := range one {
		if len(one[i].Samples) != len(two[i].Samples) {
			t.Fatalf("thread %d: %d samples, and %d", one[i].TID, len(one[i].Samples),
				len(two[i].Samples))
		}
		for j, sample := range two[i].Samples {
			if sample.RunMs == nil {
				continue
			}
			ran += *sample.RunMs
			if *sample.RunMs != *one[i].Samples[j].RunMs {
				t.Errorf("thread %d ran %v ms, and %v", one[i].TID,
					*one[i].Samples[j].RunMs, *sample.RunMs)
			}
		}
	}
	if ran == 0 {
		t.Error("a thread that spins did not run")
	}
}

// TestCalmThrottling: a look long after the one before calls all that time throttled only if the
// quota ran out in most of it.
func TestCalmThrottling(t *testing.T) {
	look := func(w *sampling, at uint32, periods, throttled uint64) {
		quota := uint64(20000)
		ns := throttled * 1e6
		w.takeCPU(1, at, &event.CPU{Cgroup: "/a", QuotaUs: &quota, PeriodUs: &quota,
			Periods: &periods, Throttled: &throttled, ThrottledNs: &ns})
	}
	for _, c := range []struct {
		closely   bool
		throttled uint64
		spans     int
	}{{true, 1, 1}, {false, 1, 0}, {false, 4, 1}} {
		w := newSampling(newAttention(time.Now()), nil, time.Minute,
			slog.New(slog.DiscardHandler))
		w.closely = c.closely
		look(w, 0, 100, 10)
		look(w, 500, 105, 10+c.throttled)
		if got := w.cpus["/a"]; len(got.Spans) != c.spans || got.Throttled != c.throttled {
			t.Errorf("closely %t, throttled in %d of 5 periods: %+v", c.closely,
				c.throttled, got.CPU)
		}
	}
}

// TestRoused: who is roused looks at once, and says of the first samples that they tell of a time
// before.
func TestRoused(t *testing.T) {
	pid := startServer(t, "sleep")
	a := newAttention(time.Now())
	w := newSampling(a, nil, time.Minute, slog.New(slog.DiscardHandler))
	w.every = time.Hour // nothing but that would make it look
	w.watch([]target{{pid, 0, 1}})
	w.begin(context.Background())
	samples := func() (calm, all int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, thread := range w.threads {
			if len(thread.Samples) <= all {
				continue
			}
			calm, all = 0, len(thread.Samples)
			for _, s := range thread.Samples {
				if s.Calm {
					calm++
				}
			}
		}
		return calm, all
	}
	for want := 2; want <= 3; want++ {
		a.alarm(time.Now())
		a.wake()
		for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			if _, all := samples(); all >= want {
				break
			}
			if time.Since(began) > 20*time.Second {
				t.Fatal("nobody looks")
			}
		}
	}
	w.end()
	if calm, all := samples(); calm != 2 || all != 3 {
		t.Errorf("%d of %d samples tell of a time not looked at, want 2 of 3", calm, all)
	}
}
