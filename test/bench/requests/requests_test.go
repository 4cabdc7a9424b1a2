// SPDX-License-Identifier: Apache-2.0

package requests

import "testing"

func TestRequestPair(t *testing.T) {
	p := requestPair{off: [2]load{{900, 1e-6}, {1100, 3e-6}}, on: load{850, 3e-6}}
	if got := p.rate(); got != 0.85 {
		t.Errorf("%v of the requests are left, want 0.85", got)
	}
	if got := p.cpu(); got != 1.5 {
		t.Errorf("a request takes %v times the CPU, want 1.5", got)
	}
}
