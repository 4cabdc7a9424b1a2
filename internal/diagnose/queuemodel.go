// SPDX-License-Identifier: Apache-2.0

package diagnose

// queueModel replays arrivals through an accept queue. It counts in millionths of a connection, so that the
// result does not depend on rounding: with more room, or more capacity, never more first SYNs are dropped
// (queuemodel_test.go holds it to that).
type queueModel struct {
	// Limit is the queue's: like the kernel's sk_acceptq_is_full, it drops while len > limit, so limit+1 fit.
	Limit uint32
	// Initial is what the queue holds at the start.
	Initial uint32
	StepMs  uint32
	// Arrivals are handshakes begun in each step; Capacity is how many connections could be accepted in it,
	// in millionths. Both are spread evenly over the step.
	Arrivals []uint64
	Capacity []uint64
	// Guessed says that the loop may accept more than Capacity: it was never seen at it for a whole step.
	Guessed bool
	// Burst lets a step's arrivals come within the first part of it instead, as bursts shorter than a step do: one of so many
	// parts; 0 and 1 stand for the whole step, atOnce for its very start.
	Burst uint64
	// Retries are the times of a client's further SYNs, in ms after its first; none: it tries once.
	Retries []uint32
}

// modelled is what a replay came to.
type modelled struct {
	Dropped uint64 // packets
	Again   uint64 // SYNs after a handshake's first, dropped or not
	Lost    uint64 // handshakes that had got through by the end of the window in no attempt
	WaitMs  float64
}

const (
	one    = 1_000_000 // a connection
	atOnce = ^uint64(0)
)

// SYN times of a Linux client since 6.5 (tcp_syn_linear_timeouts=4), and before.
var (
	retriesLinear      = []uint32{1000, 2000, 3000, 4000, 5000, 7000, 11000, 19000, 35000}
	retriesExponential = []uint32{1000, 3000, 7000, 15000, 31000, 63000}
)

// attempts are handshakes that send their nth SYN in one step.
type attempts struct {
	begun int // the step of their first SYN
	nth   int
	count uint64
}

func (m queueModel) run() modelled {
	var out modelled
	steps := len(m.Arrivals)
	due := make([][]attempts, steps)
	length := uint64(m.Initial) * one
	limit := uint64(m.Limit) * one
	waits := newWaits(m)
	for i := range m.Arrivals {
		if m.Arrivals[i] > 0 {
			due[i] = append(due[i], attempts{begun: i, count: m.Arrivals[i]})
		}
		total := uint64(0)
		for _, a := range due[i] {
			total += a.count
			if a.nth > 0 {
				out.Again += a.count
			}
		}
		each := m.Capacity[i] / (total + 1)
		rest := each
		if m.Burst > 1 {
			each /= m.Burst
			rest = m.Capacity[i] - total*each
		}
		for _, a := range due[i] {
			admitted, dropped := admit(&length, limit, each, a.count)
			if admitted > 0 {
				waits.see(i, length)
			}
			out.Dropped += dropped
			if dropped == 0 {
				continue
			}
			if next, ok := m.again(a); ok {
				due[next] = append(due[next], attempts{begun: a.begun, nth: a.nth + 1, count: dropped})
			} else {
				out.Lost += dropped
			}
		}
		serve(&length, rest)
		due[i] = nil
	}
	out.WaitMs = waits.longest()
	return out
}

// admit lets n handshakes arrive one after the other, with some capacity before each.
func admit(length *uint64, limit, each, n uint64) (admitted, dropped uint64) {
	for i := uint64(0); i < n; i++ {
		// A flood is mostly drops: those up to the next that can be admitted are counted at once.
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
		serve(length, each)
		*length += one
		admitted++
	}
	return admitted, dropped
}

func serve(length *uint64, capacity uint64) { *length -= min(*length, capacity) }

// again finds the step of a handshake's next SYN: false where it has none in the window.
func (m queueModel) again(a attempts) (int, bool) {
	if a.nth >= len(m.Retries) {
		return 0, false
	}
	// At least a step later, so that a coarse step cannot loop.
	next := max(a.begun+int(m.Retries[a.nth]/m.StepMs), a.begun+a.nth+1)
	return next, next < len(m.Arrivals)
}

// waits finds the longest time in the queue: what is in it at a step is gone once as much capacity has passed.
type waits struct {
	stepMs uint32
	before []uint64 // capacity before each step
	worst  float64
}

func newWaits(m queueModel) *waits {
	w := &waits{stepMs: m.StepMs, before: make([]uint64, len(m.Capacity)+1)}
	for i, c := range m.Capacity {
		w.before[i+1] = w.before[i] + c
	}
	return w
}

// see notes that the last in a queue of this length came in step i. Who is not accepted by the end of the window has
// waited until then.
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
