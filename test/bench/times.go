// SPDX-License-Identifier: Apache-2.0

package main

// times are how long chunks of frames took, in seconds.
type times []float64

// disturbance is the multiple of the median from which on a chunk was interrupted
// by something else: the machine's other programs or, in an emulated machine, those
// of its host, which it cannot see in any other way. A chunk takes a quarter of a
// millisecond there, a time slice of somebody else's is three. The dearest thing that
// a tracer does, writing a record where it otherwise only counts, is below it.
const disturbance = 4

// rate is the throughput in frames a second, without disturbed chunks.
func (t times) rate() float64 {
	limit := disturbance * quantile(t, 0.5)
	kept, sum := 0, 0.0
	for _, took := range t {
		if took <= limit {
			kept++
			sum += took
		}
	}
	return float64(kept*chunk) / sum
}

// wallRate leaves nothing out.
func (t times) wallRate() float64 {
	sum := 0.0
	for _, took := range t {
		sum += took
	}
	return float64(len(t)*chunk) / sum
}
