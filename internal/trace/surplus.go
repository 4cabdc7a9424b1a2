// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/synspy/synspy/internal/cli"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/session"
)

// surplus is what came after --count was reached, of one outcome and listener. It
// was counted as delivered in the kernel, so it is written as suppressed.
type surplus struct {
	listener message.Listener
	count    uint64
}

// pass counts a record beyond --count.
func (t *Trace) pass(m *message.Message) {
	key := suppressedKey{m.Outcome, m.Listener.Socket}
	have := t.surplus[key]
	t.surplus[key] = surplus{m.Listener, have.count + 1}
}

// rest takes what was still in the ring buffer when counting stopped: all of it,
// or the counts would not be the sum of what is written.
func (t *Trace) rest(m *message.Message) error {
	if err := t.message(m); !errors.Is(err, cli.ErrEnough) {
		return err
	}
	return nil
}

// writeSurplus writes how many records came after --count was reached.
func (t *Trace) writeSurplus() error {
	counts, err := t.Probe.Counts()
	if err != nil {
		return err
	}
	keys := slices.SortedFunc(maps.Keys(t.surplus), func(a, b suppressedKey) int {
		return cmp.Or(cmp.Compare(a.outcome, b.outcome), cmp.Compare(a.socket, b.socket))
	})
	counted := t.delivered + t.unwanted
	for _, key := range keys {
		b, branch := t.surplus[key], key.outcome.Branch()
		counted += b.count
		if err := t.suppress(event.Suppressed{Count: b.count, Cause: branch.Cause,
			Stage: branch.Stage, Action: branch.Action,
			Listener: session.Described(&b.listener, false)}); err != nil {
			return err
		}
	}
	// Whatever else the kernel side put into the ring buffer and nobody read.
	reached := t.taken
	for _, c := range counts {
		reached += c.Delivered
	}
	if reached > counted {
		return t.suppress(event.Suppressed{Count: reached - counted})
	}
	return nil
}

func (t *Trace) suppress(h event.Suppressed) error {
	h.Header, h.Limit = event.Head("suppressed"), event.LimitCount
	t.written.Suppressed += h.Count
	t.quiet = false
	return t.stream.Suppressed(h)
}
