// SPDX-License-Identifier: Apache-2.0

// Package incident holds listeners in trouble, to be diagnosed while it lasts.
package incident

import (
	"context"
	"net/netip"

	"github.com/synspy/synspy/internal/lab/world"
)

// Incident is a listener in trouble: what somebody is called for at night, made on
// purpose, to be diagnosed while it lasts.
type Incident struct {
	Name, Title, Explain string
	// Finding is the diagnosis that must come first, by its name.
	Finding string
	Also    []string // further causes that would be true
	Names   []string // words that the evidence of that finding must have, nil for any
	Advice  []string // words that its fixes must have, likewise
	Never   []string // words that no finding's title or fix may have
	// Harmless says that nobody is let down: nothing may be called a cause, the first finding
	// neither.
	Harmless bool
	// Unproven says that the first finding must not be called proven.
	Unproven bool
	// Ports are those that are asked about, nil for all. Place is where the listener is that
	// the first finding must name, the zero value for any.
	Ports []uint16
	Place netip.AddrPort
	// Begin sets the trouble up, and returns what keeps it going until the context
	// ends. The error wraps ErrCannotHold where this machine cannot have it.
	Begin func(ctx context.Context, w *world.World, log func(string, ...any)) (traffic, error)
}

// traffic plays clients until the context ends.
type traffic func(context.Context) error
