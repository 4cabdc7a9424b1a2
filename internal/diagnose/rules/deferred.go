// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// heldBackPart is the part of the handshakes with an ignored ACK that must be held back for
// TCP_DEFER_ACCEPT to be wrong there: some clients connect and send nothing for long wherever they
// may.
const heldBackPart = 0.5

// heldBack reports clients that TCP_DEFER_ACCEPT keeps waiting: they have the SYN-ACK,
// acknowledged it, and send nothing, as where the server speaks first.
func heldBack(e *evidence.Evidence) []*Found {
	var out []*Found
	for i := range e.Listeners {
		l := &e.Listeners[i]
		ignored := l.DeferredCount()
		if ignored == 0 || l.Deferred != nil && l.Deferred.Held == 0 {
			continue
		}
		f := newFound(event.FindingOtherDrops, ignored).about(l, l.Processes)
		f.Owner = "application"
		f.saw("cause", event.CauseDeferAccept.String(), "")
		f.saw("ACKs ignored on purpose", ignored, "packets")
		sawKnown(f, "SYNs in the window", l.Syns, "SYNs")
		f.fix("take TCP_DEFER_ACCEPT off this listener, if the server speaks first, and restart "+actors(l.Processes),
			"where that is set: Apache AcceptFilter PROTOCOL none, nginx listen without deferred, HAProxy bind without defer-accept, else setsockopt(TCP_DEFER_ACCEPT)",
			"or let clients send first")
		f.Settles = "who speaks first: where it is the client, it sent nothing for that long (a connection opened in advance), and the option does what it is for"
		if l.Deferred == nil {
			f.Severity, f.Confidence = event.SeverityNote, event.ConfidencePossible
			f.Title = "TCP_DEFER_ACCEPT ignored ACKs"
			f.Because = fmt.Sprintf("TCP_DEFER_ACCEPT on %s ignored %s; for how long it held the handshakes back was not seen", evidence.Where(l.ID), advice.Many(ignored, "ACK"))
			out = append(out, f)
			continue
		}
		d := l.Deferred
		lost := uint64(0) // SYNs for which those that are held back left no room
		if l.HoldsBack() {
			lost = synQueueDrops(l)
		}
		f.Weight, f.Counted = max(d.Held, lost), lost < d.Held
		f.saw("handshakes held back until the client sent something, or gave up", d.Held,
			"handshakes")
		f.saw("handshakes with an ignored ACK that were followed", d.Watched, "handshakes")
		f.saw("the longest that one was held back, as far as seen", d.LongestMs, "ms")
		f.saw("still held back at the end", d.AtEnd, "handshakes")
		if d.Young > 0 {
			f.saw("not followed, since their ACK came less than 1 s before the end",
				d.Young, "handshakes")
		}
		f.Because = fmt.Sprintf("TCP_DEFER_ACCEPT on %s held back %s of %s, for up to %s: their clients had acknowledged and sent nothing, as where the server speaks first",
			evidence.Where(l.ID), evidence.Thousands(d.Held), advice.Many(d.Watched,
				"handshake"), advice.Seconds(float64(d.LongestMs)))
		if lost > 0 {
			f.Because += "; they leave no room in the SYN queue"
		}
		f.Title = f.Because
		if float64(d.Held) < heldBackPart*float64(d.Watched) {
			f.Severity = event.SeverityNote
			f.Title = "TCP_DEFER_ACCEPT held back some clients that sent nothing"
		}
		out = append(out, f)
	}
	return out
}
