// SPDX-License-Identifier: Apache-2.0

package load

import "testing"

func TestRingFor(t *testing.T) {
	const gib = 1 << 30
	for memory, want := range map[uint64]uint32{0: 1 << 20, gib / 2: 1 << 20, 3 * gib: 1 << 20,
		7 * gib: 2 << 20, 15 * gib: 4 << 20, 1024 * gib: 4 << 20} {
		if got := ringFor(memory); got != want {
			t.Errorf("%d bytes of memory: %d, want %d", memory, got, want)
		}
	}
	if err := CheckRingSize(DefaultRingSize()); err != nil {
		t.Error(err)
	}
}
