// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"
)

// spread is what is told of a series of measurements.
type spread struct {
	n                int
	median, min, max float64
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{median: math.NaN(), min: math.NaN(), max: math.NaN()}
	}
	return spread{n: len(values), median: quantile(values, 0.5), min: slices.Min(values), max: slices.Max(values)}
}

// quantile interpolates between the two values nearest to q, from 0 to 1.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}
