// SPDX-License-Identifier: Apache-2.0

package whatif

// QueueModel replays arrivals through an accept queue. It counts in millionths of a connection, so
// that the result does not depend on rounding: with more room, or more capacity, never more first
// SYNs are dropped (queuemodel_test.go holds it to that).
type QueueModel struct {
	// Limit is the queue's: like the kernel's sk_acceptq_is_full, it drops while len > limit,
	// so limit+1 fit.
	Limit uint32
	// Initial is what the queue holds at the start.
	Initial uint32
	StepMs  uint32
	// Arrivals are handshakes begun in each step; Capacity is how many connections could be
	// accepted in it, in millionths. Both are spread evenly over the step.
	Arrivals []uint64
	Capacity []uint64
	// Guessed says that the loop may accept more than Capacity: it was never seen at it for a
	// whole step.
	Guessed bool
	// Burst lets a step's arrivals come within the first part of it instead, as bursts shorter
	// than a step do: one of so many parts; 0 and 1 stand for the whole step, atOnce for its
	// very start.
	Burst uint64
	// Retries are the times of a client's further SYNs, in ms after its first; none: it tries
	// once.
	Retries []uint32
}

// Modelled is what a replay came to.
type Modelled struct {
	Dropped uint64 // packets
	Again   uint64 // SYNs after a handshake's first, dropped or not
	Lost    uint64 // handshakes that had got through by the end of the window in no attempt
	WaitMs  float64
}

const (
	One    = 1_000_000 // a connection
	AtOnce = ^uint64(0)
)

// SYN times of a Linux client since 6.5 (tcp_syn_linear_timeouts=4), and before.
var (
	RetriesLinear      = []uint32{1000, 2000, 3000, 4000, 5000, 7000, 11000, 19000, 35000}
	RetriesExponential = []uint32{1000, 3000, 7000, 15000, 31000, 63000}
)

// Attempts are handshakes that send their nth SYN in one step.
type Attempts struct {
	Begun int // the step of their first SYN
	Nth   int
	Count uint64
}

// Run replays the attempts.
func (m QueueModel) Run() Modelled {
	var out Modelled
	steps := len(m.Arrivals)
	due := make([][]Attempts, steps)
	length := uint64(m.Initial) * One
	limit := uint64(m.Limit) * One
	waits := newWaits(m)
	for i := range m.Arrivals {
		if m.Arrivals[i] > 0 {
			due[i] = append(due[i], Attempts{Begun: i, Count: m.Arrivals[i]})
		}
		total := uint64(0)
		for _, a := range due[i] {
			total += a.Count
			if a.Nth > 0 {
				out.Again += a.Count
			}
		}
		each := m.Capacity[i] / (total + 1)
		rest := each
		if m.Burst > 1 {
			each /= m.Burst
			rest = m.Capacity[i] - total*each
		}
		for _, a := range due[i] {
			admitted, dropped := Admit(&length, limit, each, a.Count)
			if admitted > 0 {
				waits.see(i, length)
			}
			out.Dropped += dropped
			if dropped == 0 {
				continue
			}
			if next, ok := m.Again(a); ok {
				due[next] = append(due[next], Attempts{Begun: a.Begun, Nth: a.Nth +
					1, Count: dropped})
			} else {
				out.Lost += dropped
			}
		}
		Serve(&length, rest)
		due[i] = nil
	}
	out.WaitMs = waits.longest()
	return out
}

// Admit lets n handshakes arrive one after the other, with some capacity before each.
func Admit(length *uint64, limit, each, n uint64) (admitted, dropped uint64) {
	for i := uint64(0); i < n; i++ {
		// A flood is mostly drops: those up to the next that can be admitted are counted at
		// once.
		if *length > limit {
			run := n - i
			if each > 0 {
				run = min(run, (*length-limit-1)/each)
			}
			*length -= run * each
			dropped += run
			if i += run; i == n {
				break
			}
		}
		Serve(length, each)
		*length += One
		admitted++
	}
	return admitted, dropped
}

// Serve takes as many from the queue as the capacity allows.
func Serve(length *uint64, capacity uint64) { *length -= min(*length, capacity) }

// Again finds the step of a handshake's next SYN: false where it has none in the window.
func (m QueueModel) Again(a Attempts) (int, bool) {
	if a.Nth >= len(m.Retries) {
		return 0, false
	}
	// At least a step later, so that a coarse step cannot loop.
	next := max(a.Begun+int(m.Retries[a.Nth]/m.StepMs), a.Begun+a.Nth+1)
	return next, next < len(m.Arrivals)
}

// waits finds the longest time in the queue: what is in it at a step is gone once as much capacity
// has passed.
type waits struct {
	stepMs uint32
	before []uint64 // capacity before each step
	worst  float64
}

func newWaits(m QueueModel) *waits {
	w := &waits{stepMs: m.StepMs, before: make([]uint64, len(m.Capacity)+1)}
	for i, c := range m.Capacity {
		w.before[i+1] = w.before[i] + c
	}
	return w
}

// see notes that the last in a queue of this length came in step i. Who is not accepted by the end
// of the window has waited until then.
func (w *waits) see(i int, length uint64) {
	lo, hi := i, len(w.before)-1
	for lo < hi { // the first step after which enough has passed
		mid := (lo + hi) / 2
		if w.before[mid+1]-w.before[i] >= length {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if ms := float64(lo-i) * float64(w.stepMs); ms > w.worst {
		w.worst = ms
	}
}

func (w *waits) longest() float64 { return w.worst }
