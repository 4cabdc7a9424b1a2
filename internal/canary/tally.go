// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/synspy/synspy/internal/event"
)

// tally is what a summary is made of. Its size does not depend on how long a
// canary runs.
type tally struct {
	sent, retransmitted, retransmits uint64
	skipped                          atomic.Uint64
	outcomes                         map[event.CanaryOutcome]uint64
	server                           *event.Endpoint
	latency, rtt                     distribution
	histogram                        map[int]*event.CanaryBucket // by step
}

func newTally() *tally {
	return &tally{outcomes: make(map[event.CanaryOutcome]uint64),
		histogram: make(map[int]*event.CanaryBucket)}
}

func (t *tally) skip() { t.skipped.Add(1) }

func (t *tally) add(r event.Canary) {
	t.sent++
	t.outcomes[r.Outcome]++
	if r.Server != nil {
		t.server = r.Server
	}
	again := r.Retransmits != nil && *r.Retransmits > 0
	if again {
		t.retransmitted++
		t.retransmits += uint64(*r.Retransmits)
	}
	if r.RTTMs != nil {
		t.rtt.add(*r.RTTMs)
	}
	if r.LatencyMs == nil || r.Outcome == event.CanaryRefused {
		return
	}
	t.latency.add(*r.LatencyMs)
	step := stepOf(*r.LatencyMs)
	bucket := t.histogram[step]
	if bucket == nil {
		bucket = &event.CanaryBucket{FromMs: stepFrom(step), ToMs: stepFrom(step + 1)}
		t.histogram[step] = bucket
	}
	bucket.Count++
	if again {
		bucket.Retransmitted++
	}
}

func (t *tally) summary(target string, during time.Duration) event.CanarySummary {
	s := event.CanarySummary{Header: event.Head("canary_summary"), Target: target,
		Server:     t.server,
		DurationMs: uint64(during.Milliseconds()), Sent: t.sent, Skipped: t.skipped.Load(),
		Outcomes:      t.outcomes,
		Retransmitted: t.retransmitted, Retransmits: t.retransmits,
		Latency: t.latency.summary(), RTT: t.rtt.summary(), Histogram: t.buckets()}
	s.Verdict = verdict(s)
	return s
}

// buckets are those from the first to the last that has counted, without gaps.
func (t *tally) buckets() []event.CanaryBucket {
	buckets := []event.CanaryBucket{}
	if len(t.histogram) == 0 {
		return buckets
	}
	first, last := math.MaxInt, math.MinInt
	for step := range t.histogram {
		first, last = min(first, step), max(last, step)
	}
	for step := first; step <= last; step++ {
		if b := t.histogram[step]; b != nil {
			buckets = append(buckets, *b)
			continue
		}
		buckets = append(buckets,
			event.CanaryBucket{FromMs: stepFrom(step), ToMs: stepFrom(step + 1)})
	}
	return buckets
}

// verdict is the summary in a sentence.
func verdict(s event.CanarySummary) string {
	connected := s.Outcomes[event.CanaryConnected]
	worst, n := event.CanaryOutcome(""), uint64(0)
	for _, o := range event.CanaryOutcomes()[1:] {
		if s.Outcomes[o] > n {
			worst, n = o, s.Outcomes[o]
		}
	}
	switch {
	case s.Sent == 0:
		return "nothing was sent"
	case connected == 0 && s.Outcomes[event.CanaryReset]+s.Outcomes[event.CanaryStalled] > 0: // the client took itself for connected
		return fmt.Sprintf("no connection lasted, %s: %s", most(worst, n, s.Sent),
			worst.Meaning())
	case connected == 0:
		return fmt.Sprintf("never connected, %s: %s", most(worst, n, s.Sent),
			worst.Meaning())
	case worst != "" && worst != event.CanaryPending:
		return fmt.Sprintf("%d of %d failed, %s: %s", s.Sent-connected, s.Sent,
			most(worst, n, s.Sent-connected), worst.Meaning())
	case s.Retransmitted > 0 && s.RTT != nil && s.RTT.P50 >= initialRTO:
		return fmt.Sprintf("slow network: the median round trip is %.0f ms, longer than a SYN waits before it is sent again", s.RTT.P50)
	case s.Retransmitted > 0:
		return fmt.Sprintf("%d of %d had a SYN sent again (%.1f %%): lost, or dropped by a full queue; a slow network would show in the round trip",
			s.Retransmitted, s.Sent, 100*float64(s.Retransmitted)/float64(s.Sent))
	case s.Latency.P50 >= float64(slow.Milliseconds()):
		return "slow network: no SYN was sent again, the round trips took that long"
	default:
		return "every answer came to the first SYN"
	}
}

// most says how many of those that did not connect ended so.
func most(o event.CanaryOutcome, n, of uint64) string {
	if n == of {
		return string(o)
	}
	return "mostly " + string(o)
}

// stepOf numbers the buckets 1, 2, 5, 10, 20, 50...: every retransmission of a
// SYN (1, 3, 7 s; on newer clients 1, 2, 3, 4, 5 s) is then far from what a
// network takes.
func stepOf(ms float64) int {
	decade := int(math.Floor(math.Log10(max(ms, leastMs))))
	step := 3 * decade
	for stepFrom(step+1) <= ms {
		step++
	}
	for stepFrom(step) > ms && ms >= leastMs { // log10 may round up
		step--
	}
	return step
}

const leastMs = 0.01

func stepFrom(step int) float64 {
	decade, rest := step/3, step%3
	if rest < 0 {
		decade, rest = decade-1, rest+3
	}
	// Powers of ten below one have no exact form; this is the nearest.
	if decade < 0 {
		return [...]float64{1, 2, 5}[rest] / math.Pow10(-decade)
	}
	return [...]float64{1, 2, 5}[rest] * math.Pow10(decade)
}

// distribution counts in steps of 2 %.
type distribution struct {
	counts   map[int]uint64
	n        uint64
	min, max float64
}

const distributionStep = 1.02

func (d *distribution) add(ms float64) {
	if d.counts == nil {
		d.counts, d.min, d.max = make(map[int]uint64), ms, ms
	}
	d.n++
	d.min, d.max = min(d.min, ms), max(d.max, ms)
	d.counts[int(math.Floor(math.Log(max(ms, 0.001))/math.Log(distributionStep)))]++
}

func (d *distribution) summary() *event.CanaryLatency {
	if d.n == 0 {
		return nil
	}
	return &event.CanaryLatency{Min: d.min, P50: d.percentile(0.5), P90: d.percentile(0.9),
		P99: d.percentile(0.99), Max: d.max}
}

// percentile is the nearest rank's, to the microsecond.
func (d *distribution) percentile(p float64) float64 {
	rank := uint64(math.Ceil(p * float64(d.n)))
	first, last := math.MaxInt, math.MinInt
	for k := range d.counts {
		first, last = min(first, k), max(last, k)
	}
	below := uint64(0)
	for k := first; k <= last; k++ {
		if below += d.counts[k]; below >= rank {
			middle := math.Pow(distributionStep, float64(k)+0.5)
			return math.Round(1000*min(max(middle, d.min), d.max)) / 1000
		}
	}
	return d.max
}
