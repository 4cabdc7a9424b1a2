// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"

	"github.com/synspy/synspy/internal/lab/world"
)

// Twins is a scenario for either family.
func Twins(name, title, explain string, played func(world.Family) PlayFunc) []Scenario {
	return []Scenario{
		{Name: name, Title: title, Explain: explain, Play: played(world.Family4)},
		{Name: name + "-ipv6", Title: title + ", IPv6", Explain: name +
			" with IPv6 clients. " + explain, Play: NeedsIPv6(played(world.Family6))},
	}
}

// NeedsIPv6 refuses to play where IPv6 is compiled out or disabled at boot.
func NeedsIPv6(inner PlayFunc) PlayFunc {
	return func(ctx context.Context, w *world.World, log func(string, ...any)) (Expectation,
		error) {
		if err := world.HaveIPv6(); err != nil {
			return Expectation{}, err
		}
		return inner(ctx, w, log)
	}
}
