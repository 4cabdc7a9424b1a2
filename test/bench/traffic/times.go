// SPDX-License-Identifier: Apache-2.0

package traffic

import "github.com/synspy/synspy/test/bench/figures"

// Times are how long chunks of frames took, in seconds.
type Times []float64

// undisturbed is the part of the chunks, the fastest ones, that is looked at. What
// the slower ones have seen is mostly other programs: those of this machine, those of
// its host, and whatever runs on the other half of the same core, which alone makes
// chunks take 1.7 times as long. Measured 16 times under such load, the median chunk
// varied by 29 % from one time to the next, the fastest twentieth by less than 2 %, save
// for the odd time when nothing was ever quiet, which the median of the pairs leaves out.
//
// It does not favour synspy: the fastest moments of a tracer that writes a record for
// every frame are those when its buffer is full, or its reader out of the way.
const undisturbed = 0.05

// Rate is the throughput in frames a second, while nothing else disturbs.
func (t Times) Rate() float64 { return chunk / figures.Quantile(t, undisturbed) }

// WallRate is the throughput by the clock.
func (t Times) WallRate() float64 {
	sum := 0.0
	for _, took := range t {
		sum += took
	}
	return float64(len(t)*chunk) / sum
}
