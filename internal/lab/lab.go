// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"

	"github.com/synspy/synspy/internal/lab/ingress"
	"github.com/synspy/synspy/internal/lab/listenpath"
	"github.com/synspy/synspy/internal/lab/scenario"
)

// Scenarios lists all scenarios, the ones that need no explanation first.
func Scenarios() []scenario.Scenario {
	return slices.Concat(listenpath.Queues(), listenpath.Path(), listenpath.LSM(),
		ingress.Scenarios())
}

// Find returns the scenario of that name.
func Find(name string) (scenario.Scenario, bool) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, true
		}
	}
	return scenario.Scenario{}, false
}
