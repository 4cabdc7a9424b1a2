// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
)

// DidYouMean asks for the names that are nearest to one that does not exist, as a line of a hint;
// it is empty where none is near.
func DidYouMean(name string, of []string) string {
	near := nearest(name, of)
	if len(near) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// nearest lists the names that may have been meant, at most three: those that are a few slips of
// the keyboard away, and if there is none, those that begin or end so.
func nearest(name string, of []string) (near []string) {
	name = strings.ToLower(name)
	if len(name) > longestName {
		return nil
	}
	slips := max(1, len(name)/3)
	for _, have := range of {
		switch d := distance(name, have); {
		case d < slips:
			near, slips = []string{have}, d
		case d == slips && !slices.Contains(near, have):
			near = append(near, have)
		}
	}
	if near == nil && len(name) >= 3 {
		for _, have := range of {
			if strings.HasPrefix(have, name) || strings.HasSuffix(have, name) {
				near = append(near, have)
			}
		}
	}
	return near[:min(len(near), 3)]
}

// longestName bounds what is compared: no name is nearly as long.
const longestName = 64

// distance counts the slips that lead from one name to the other: a character left out, added,
// replaced, or two exchanged.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
