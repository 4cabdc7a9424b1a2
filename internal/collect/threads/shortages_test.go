// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/watch"
	"github.com/synspy/synspy/internal/thread"
)

// failingCalls is an accept() that fails as often as is wanted in each window.
type failingCalls struct {
	costly   bool
	each     uint64
	attached bool
	windows  int
	list     []watch.Shortage
	closed   bool
}

func (f *failingCalls) Costly() bool         { return f.costly }
func (f *failingCalls) Watch([]uint32) error { return nil }
func (f *failingCalls) Attach() error {
	f.attached = true
	f.windows++
	return nil
}

func (f *failingCalls) Detach() error {
	f.attached = false
	if f.each > 0 {
		f.list = []watch.Shortage{{PID: uint32(os.Getpid()), FD: -1, Error: 24,
			Count: f.each * uint64(f.windows)}}
	}
	return nil
}
func (f *failingCalls) Read() ([]watch.Shortage, uint64, error) { return f.list, 0, nil }
func (f *failingCalls) Close() error {
	f.closed = true
	return nil
}

// TestShortageWindows: what every system call pays for is attached for no longer than it is said to
// be, and only while a queue stands full.
func TestShortageWindows(t *testing.T) {
	here := []Standing{{Inode: 7, Processes: []event.Process{{PID: uint32(os.Getpid())}},
		Full: true}}
	for _, tt := range []struct {
		name    string
		calls   failingCalls
		stands  func(ms int) bool
		windows int
		most    time.Duration // attached in all
	}{
		{"costly, and nothing fails", failingCalls{costly: true},
			func(int) bool { return true }, 10, 10 * shortageWindow},
		{"costly, and it fails", failingCalls{costly: true, each: 5},
			func(int) bool {
				return true
			}, shortagesSeen, shortagesSeen * shortageWindow},
		{"cheap", failingCalls{}, func(int) bool { return true }, 50, 10 * time.Second},
		{"costly, and it is not full", failingCalls{costly: true, each: 5},
			func(int) bool { return true }, 0, 0},
		{"nothing stands", failingCalls{costly: true}, func(int) bool { return false }, 0,
			0},
		{"it stands for a moment", failingCalls{costly: true},
			func(ms int) bool {
				return ms >= 3000 &&
					ms < 3100
			}, 1, shortageWindow / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newShortageWatch(thread.NewSampler("/proc", nil),
				func() (Shortages, error) {
					return &tt.calls,
						nil
				}, slog.New(slog.DiscardHandler))
			here[0].Full = tt.name != "costly, and it is not full"
			began := time.Now()
			var attached time.Duration
			for ms := 0; ms < 10_000; ms += 50 {
				var list []Standing
				if tt.stands(ms) {
					list = here
				}
				w.tick(began.Add(time.Duration(ms)*time.Millisecond), list)
				if tt.calls.attached {
					attached += 50 * time.Millisecond
				}
			}
			w.finish()
			if tt.calls.windows != tt.windows || attached > tt.most {
				t.Errorf("%d windows, %s in all; want %d, and at most %s",
					tt.calls.windows, attached, tt.windows, tt.most)
			}
			stood := tt.stands(3050)
			if tt.calls.attached || stood != tt.calls.closed {
				t.Error("it was not ended")
			}
			failures, descriptors := w.of(7, here[0].Processes)
			if len(failures) != min(1, int(tt.calls.each)*tt.windows) ||
				stood != (len(descriptors) == 1) {
				t.Errorf("%+v %+v", failures, descriptors)
			}
			if len(failures) == 1 && (failures[0].Errno != "EMFILE" ||
				failures[0].Count != shortagesSeen*tt.calls.each) {
				t.Errorf("%+v", failures[0])
			}
			if other, _ := w.of(7, []event.Process{{PID: 1}}); len(other) > 0 {
				t.Errorf("another process's: %+v", other)
			}
		})
	}
}

// TestShortagesRefused: where it cannot be had it is asked for once, and descriptors are counted
// all the same.
func TestShortagesRefused(t *testing.T) {
	asked := 0
	w := newShortageWatch(thread.NewSampler("/proc", nil),
		func() (Shortages, error) {
			asked++
			return nil,
				errors.New("no")
		}, slog.New(slog.DiscardHandler))
	for i := range 20 {
		w.tick(time.Now().Add(time.Duration(i)*time.Second),
			[]Standing{{7, []event.Process{{PID: uint32(os.Getpid())}}, true}})
	}
	w.finish()
	if _, descriptors := w.of(7, []event.Process{{PID: uint32(os.Getpid())}}); asked != 1 ||
		w.refused == nil || len(descriptors) != 1 || descriptors[0].Readings < 10 {
		t.Errorf("asked %d times, refused %v, %+v", asked, w.refused, descriptors)
	}
}
