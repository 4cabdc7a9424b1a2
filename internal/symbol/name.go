// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"strings"

	"github.com/ianlancetaylor/demangle"
)

// Limits of names, in bytes. Mangled names grow when they are taken apart.
const (
	maxName    = 512
	maxMangled = 2048
)

// Clean makes a foreign string valid UTF-8 of bounded length.
func Clean(name string) string {
	if len(name) > maxName {
		name = name[:maxName] + "…"
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}

// readable is the name of a function as people write it: C++ and Rust names are taken apart, and
// versions are taken off.
func readable(name string) string {
	if at := strings.IndexByte(name, '@'); at > 0 && !strings.Contains(name, "(") {
		name = name[:at]
	}
	if len(name) <= maxMangled &&
		(strings.HasPrefix(name, "_Z") || strings.HasPrefix(name, "_R")) {
		name = demangle.Filter(name, demangle.NoParams, demangle.NoEnclosingParams,
			demangle.MaxLength(9))
	}
	return Clean(name)
}

// better says which of two names of the same code is the one people know: libc's
// functions have aliases with underscores.
func better(a, b string) bool {
	under := func(s string) int { return len(s) - len(strings.TrimLeft(s, "_")) }
	switch {
	case under(a) != under(b):
		return under(a) < under(b)
	case len(a) != len(b):
		return len(a) < len(b)
	}
	return a < b
}
