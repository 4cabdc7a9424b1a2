// SPDX-License-Identifier: Apache-2.0

package network

import (
	"testing"

	"github.com/synspy/synspy/internal/event"
)

// TestManyDeaths: more kinds of deaths than are told apart are counted all the same.
func TestManyDeaths(t *testing.T) {
	deaths := make(Deaths)
	const ports = 2 * maxDeaths
	for port := range uint16(ports) {
		deaths.Add(DeathOf(&event.Drop{Cause: event.CauseNoListener,
			Stage:  event.StageIngress,
			Action: event.ActionReset, Server: &event.Endpoint{
				Port: 1 + port}}), nil, 1)
	}
	var n uint64
	for _, count := range deaths {
		n += count.count
	}
	if n != ports || len(deaths) != maxDeaths+1 {
		t.Errorf("%d deaths of %d kinds, want %d of %d", n, len(deaths), ports, maxDeaths+1)
	}
}
