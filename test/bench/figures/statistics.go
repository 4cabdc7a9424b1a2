// SPDX-License-Identifier: Apache-2.0

// Package figures sums up series of measurements, and prints them.
package figures

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Spread is what is told of a series of measurements.
type Spread struct {
	N                int
	Median, Min, Max float64
}

func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	return Spread{N: len(values), Median: Quantile(values, 0.5), Min: slices.Min(values), Max: slices.Max(values)}
}

// Quantile interpolates between the two values nearest to q, from 0 to 1.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// Text writes median (min..max).
func (s Spread) Text(decimals int, unit string) string {
	if s.N == 0 {
		return "-"
	}
	f := func(v float64) string { return strconv.FormatFloat(v, 'f', decimals, 64) }
	if f(s.Min) == f(s.Max) {
		return f(s.Median) + unit
	}
	return fmt.Sprintf("%s%s (%s..%s)", f(s.Median), unit, f(s.Min), f(s.Max))
}
