// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"strings"
	"testing"
)

// TestRelocatedImageIsKept: read-only is not unwritten: the loader relocates first.
func TestRelocatedImageIsKept(t *testing.T) {
	mapping := func(header, anonymous string) string {
		return header + "\nSize: 4 kB\nRss: 4 kB\nAnonymous:             " + anonymous + "\nVmFlags: rd ex mr\n"
	}
	smaps := mapping("00400000-00500000 r-xp 00000000 08:01 7  /usr/bin/synspy", "0 kB") +
		mapping("00500000-00600000 r--p 00100000 08:01 7  /usr/bin/synspy", "12 kB") +
		mapping("00600000-00700000 rw-p 00200000 08:01 7  /usr/bin/synspy", "0 kB") +
		mapping("7f0000000000-7f0000001000 r-xp 00000000 08:01 8  /lib/libc.so.6", "0 kB")
	got := fmt.Sprintf("%x", pristine(strings.NewReader(smaps), "/usr/bin/synspy"))
	if want := "[[400000 500000]]"; got != want {
		t.Errorf("given back: %s, want %s", got, want)
	}
}
