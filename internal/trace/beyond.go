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

// beyond is what came after --count was reached, of one outcome and listener. It
// was counted as delivered in the kernel, so it is told as suppressed.
type beyond struct {
	listener message.Listener
	count    uint64
}

// pass counts a record that nobody asked for any more.
func (t *Trace) pass(m *message.Message) {
	key := heldKey{m.Outcome, m.Listener.Socket}
	have := t.beyond[key]
	t.beyond[key] = beyond{m.Listener, have.count + 1}
}

// rest takes what was still in the ring buffer when counting stopped: all of it,
// or the counts would not be the sum of what is told.
func (t *Trace) rest(m *message.Message) error {
	if err := t.message(m); !errors.Is(err, cli.ErrEnough) {
		return err
	}
	return nil
}

// tellBeyond writes how many records came after --count was reached.
func (t *Trace) tellBeyond() error {
	counts, err := t.Probe.Counts()
	if err != nil {
		return err
	}
	keys := slices.SortedFunc(maps.Keys(t.beyond), func(a, b heldKey) int {
		return cmp.Or(cmp.Compare(a.outcome, b.outcome), cmp.Compare(a.socket, b.socket))
	})
	told := t.delivered + t.unwanted
	for _, key := range keys {
		b, branch := t.beyond[key], key.outcome.Branch()
		told += b.count
		if err := t.hold(event.Held{Count: b.count, Cause: branch.Cause,
			Stage: branch.Stage, Action: branch.Action,
			Listener: session.Described(&b.listener, false)}); err != nil {
			return err
		}
	}
	// Whatever else the kernel side put into the ring buffer and nobody got.
	reached := t.taken
	for _, c := range counts {
		reached += c.Delivered
	}
	if reached > told {
		return t.hold(event.Held{Count: reached - told})
	}
	return nil
}

func (t *Trace) hold(h event.Held) error {
	h.Header, h.Limit = event.Head("suppressed"), event.LimitCount
	t.told.Suppressed += h.Count
	t.quiet = false
	return t.stream.Held(h)
}
