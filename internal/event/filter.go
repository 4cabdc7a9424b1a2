// SPDX-License-Identifier: Apache-2.0

package event

import (
	"slices"
	"strings"
)

// Filter is one of those that a run was given, as it was written: "port", "443,8000-8010".
type Filter struct {
	Name  string `json:"name"` // the flag's, without its dashes
	Value string `json:"value"`
}

// Filtered reports whether a filter of one of these names is among them.
func Filtered(filters []Filter, names ...string) bool {
	return slices.ContainsFunc(filters, func(f Filter) bool {
		return slices.Contains(names, f.Name)
	})
}

// FilterText writes filters as flags; it is empty for none.
func FilterText(filters []Filter) string {
	flags := make([]string, len(filters))
	for i, f := range filters {
		flags[i] = "--" + f.Name + " " + f.Value
	}
	return strings.Join(flags, " ")
}
