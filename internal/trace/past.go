// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/listener"
	"github.com/synspy/synspy/internal/session"
)

// forgetClosed ends what is kept of the listeners that closed first: what comes and goes for as
// long as synspy runs must not make it grow. What reached them has a row together.
func (t *Trace) forgetClosed() error {
	old := t.Listeners.Outdated()
	if len(old) == 0 {
		return nil
	}
	still, err := t.Probe.Forget(old, t.isPast)
	if err != nil {
		return err
	}
	t.Listeners.Forget(old, still)
	return nil
}

// isPast reports whether what reached a listener counts, now that it is to be forgotten.
func (t *Trace) isPast(a listener.Arrivals) bool {
	listener, ok := t.Listeners.Find(a.Socket)
	if !ok || !t.Listeners.Matches(&listener) {
		return false
	}
	if before, told := t.quietSeen[a.Socket]; told {
		t.quietPast.Syn += before.Syn
		t.quietPast.Ack += before.Ack
		if before == a {
			t.quietPast.Listeners++
		}
	}
	return true
}

// pastRows is the row of the listeners that were forgotten since, if packets reached any.
func pastRows(past, since listener.Past) []event.Seen {
	row := event.Seen{Others: true, Closed: past.Listeners - since.Listeners,
		Syn: past.Syn - since.Syn, Ack: past.Ack - since.Ack}
	if row.Closed == 0 {
		return nil
	}
	if past.Accepting != nil {
		row.Accepting = session.AcceptingShown(past.Accepting)
	}
	return []event.Seen{row}
}
