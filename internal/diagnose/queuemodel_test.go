// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"math/rand/v2"
	"testing"

	"github.com/synspy/synspy/internal/diagnose/whatif"
)

// TestQueueModel replays windows that can be worked out by hand.
func TestQueueModel(t *testing.T) {
	steps := func(n int, at map[int]uint64) []uint64 {
		s := make([]uint64, n)
		for i, v := range at {
			s[i] = v
		}
		return s
	}
	for _, tt := range []struct {
		name string
		m    whatif.QueueModel
		want whatif.Modelled
	}{
		{"limit+1 fit", whatif.QueueModel{Limit: 4, StepMs: 100,
			Arrivals: steps(3, map[int]uint64{0: 6}), Capacity: steps(3, nil)},
			whatif.Modelled{Dropped: 1, Lost: 1, WaitMs: 300}},
		{"limit zero holds one", whatif.QueueModel{Limit: 0, StepMs: 100,
			Arrivals: steps(3, map[int]uint64{0: 2}), Capacity: steps(3, nil)},
			whatif.Modelled{Dropped: 1, Lost: 1, WaitMs: 300}},
		{"what is there already counts", whatif.QueueModel{Limit: 4, Initial: 5,
			StepMs:   100,
			Arrivals: steps(2, map[int]uint64{0: 1}), Capacity: steps(2, nil)},
			whatif.Modelled{Dropped: 1, Lost: 1}},
		{"a retry gets through", whatif.QueueModel{Limit: 0, StepMs: 100,
			Retries:  whatif.RetriesLinear,
			Arrivals: steps(12, map[int]uint64{0: 2}), Capacity: steps(12,
				map[int]uint64{5: 1 * whatif.One, 6: 1 * whatif.One})},
			whatif.Modelled{Dropped: 1, Again: 1, WaitMs: 500}},
		{"retries are dropped too", whatif.QueueModel{Limit: 0, StepMs: 100,
			Retries:  whatif.RetriesLinear,
			Arrivals: steps(25, map[int]uint64{0: 2}), Capacity: steps(25, nil)},
			whatif.Modelled{Dropped: 3, Again: 2, Lost: 1, WaitMs: 2500}},
		{"the older clients wait longer between them", whatif.QueueModel{Limit: 0,
			StepMs: 100, Retries: whatif.RetriesExponential,
			Arrivals: steps(25, map[int]uint64{0: 2}), Capacity: steps(25, nil)},
			whatif.Modelled{Dropped: 2, Again: 1, Lost: 1, WaitMs: 2500}},
		{"idle capacity is not saved up", whatif.QueueModel{Limit: 0, StepMs: 100,
			Arrivals: steps(9, map[int]uint64{8: 3}), Capacity: []uint64{9 * whatif.One,
				9 * whatif.One, 9 * whatif.One, 9 * whatif.One, 9 * whatif.One,
				9 * whatif.One, 9 * whatif.One, 9 * whatif.One, 0}},
			whatif.Modelled{Dropped: 2, Lost: 2, WaitMs: 100}},
		{"capacity is spread over the step", whatif.QueueModel{Limit: 0, StepMs: 100,
			Arrivals: steps(1,
				map[int]uint64{0: 4}), Capacity: []uint64{5 * whatif.One}},
			whatif.Modelled{}},
		{"or over a part of it", whatif.QueueModel{Limit: 0, StepMs: 100, Burst: 2,
			Arrivals: steps(1,
				map[int]uint64{0: 4}), Capacity: []uint64{5 * whatif.One}},
			whatif.Modelled{Dropped: 2, Lost: 2}},
		{"or all at once", whatif.QueueModel{Limit: 0, StepMs: 100, Burst: whatif.AtOnce,
			Arrivals: steps(1,
				map[int]uint64{0: 4}), Capacity: []uint64{5 * whatif.One}},
			whatif.Modelled{Dropped: 3, Lost: 3}},
		{"nothing", whatif.QueueModel{StepMs: 50}, whatif.Modelled{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.m.Run(); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestAdmit compares the counting of drops by the run with one arrival after the other.
func TestAdmit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 20_000 {
		length, limit, each, n := r.Uint64N(30*whatif.One), r.Uint64N(20)*whatif.One,
			r.Uint64N(2*whatif.One), r.Uint64N(60)
		if r.IntN(4) == 0 {
			each = 0
		}
		slow, wantAdmitted, wantDropped := length, uint64(0), uint64(0)
		for range n {
			if whatif.Serve(&slow, each); slow > limit {
				wantDropped++
			} else {
				slow += whatif.One
				wantAdmitted++
			}
		}
		was := length
		admitted, dropped := whatif.Admit(&length, limit, each, n)
		if admitted != wantAdmitted || dropped != wantDropped || length != slow {
			t.Fatalf("length %d, limit %d, each %d, n %d: %d admitted, %d dropped, length %d; want %d, %d, %d",
				was, limit, each, n, admitted, dropped, length, wantAdmitted, wantDropped, slow)
		}
	}
}

// randomModel makes a window with standstills and bursts.
func randomModel(r *rand.Rand) whatif.QueueModel {
	m := whatif.QueueModel{Limit: r.Uint32N(40), Initial: r.Uint32N(10), StepMs: 50,
		Burst: []uint64{0, 1, 3, whatif.AtOnce}[r.IntN(4)]}
	for range 1 + r.IntN(120) {
		arrivals, capacity := r.Uint64N(6), r.Uint64N(6*whatif.One)
		if r.IntN(10) == 0 {
			arrivals = r.Uint64N(120)
		}
		if r.IntN(4) == 0 {
			capacity = 0
		}
		m.Arrivals, m.Capacity = append(m.Arrivals, arrivals), append(m.Capacity, capacity)
	}
	return m
}

// TestMoreNeverHurts is what the table of a diagnosis rests on: without retries a larger limit and
// more workers never drop more.
func TestMoreNeverHurts(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := randomModel(r)
		base := m.Run()
		more := m
		more.Limit += 1 + r.Uint32N(50)
		if got := more.Run(); got.Dropped > base.Dropped {
			t.Fatalf("seed %d: limit %d drops %d, %d drops %d", seed, m.Limit,
				base.Dropped, more.Limit, got.Dropped)
		}
		workers := m
		workers.Capacity = whatif.Scale(m.Capacity, 1+r.Float64()*3)
		if got := workers.Run(); got.Dropped > base.Dropped {
			t.Fatalf("seed %d: more workers: %+v, before %+v", seed, got, base)
		}
	}
}

// FuzzQueueModel holds any window to what must be true of it.
func FuzzQueueModel(f *testing.F) {
	f.Add(uint64(1), uint32(4), true)
	f.Add(uint64(7), uint32(0), false)
	f.Fuzz(func(t *testing.T, seed uint64, limit uint32, linear bool) {
		m := randomModel(rand.New(rand.NewPCG(seed, 2)))
		m.Limit = limit
		m.Retries = whatif.RetriesExponential
		if linear {
			m.Retries = whatif.RetriesLinear
		}
		var handshakes uint64
		for _, a := range m.Arrivals {
			handshakes += a
		}
		got := m.Run()
		if got.Lost > handshakes || got.Lost > got.Dropped {
			t.Errorf("%d lost of %d, %d dropped", got.Lost, handshakes, got.Dropped)
		}
		if got.WaitMs > float64(len(m.Arrivals))*float64(m.StepMs) {
			t.Errorf("a wait of %v ms in %d steps", got.WaitMs, len(m.Arrivals))
		}
		m.Limit = uint32(handshakes) + m.Initial
		if got := m.Run(); got.Dropped != 0 {
			t.Errorf("room for all, and %d dropped", got.Dropped)
		}
	})
}
