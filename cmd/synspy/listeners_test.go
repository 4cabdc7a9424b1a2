// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestListenersOfNobody: without privileges there is a list, and what is missing of it
// is said.
func TestListenersOfNobody(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"listeners"}, {"listeners", "--watch", "--count", "1"}} {
		_, stderr, code := as(t, nil, args...)
		if code != 0 || !strings.Contains(stderr, "BPF is not permitted") ||
			!strings.Contains(stderr, "sudo") {
			t.Errorf("%s: exit code %d; standard error:\n%s", args, code, stderr)
		}
	}
}
