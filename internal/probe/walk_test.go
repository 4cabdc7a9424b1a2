// SPDX-License-Identifier: Apache-2.0

package probe

import "testing"

// holdersHere lists who holds listeners.
func holdersHere(t *testing.T, p *Probe) ([]Holder, *Found) {
	t.Helper()
	var holders []Holder
	found, err := p.Walk(func(h *Holder) { holders = append(holders, *h) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return holders, found
}
