// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"testing"

	"github.com/synspy/synspy/internal/probe/holders"
)

// holdersHere lists who holds listeners.
func holdersHere(t *testing.T, p *Probe) ([]holders.Holder, *holders.Found) {
	t.Helper()
	var list []holders.Holder
	found, err := p.Walk(func(h *holders.Holder) { list = append(list, *h) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return list, found
}
