// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// Failed is how many packets died whose client may have been let down by it.
func Failed(e *Evidence) uint64 {
	n := DiedOfAll(e.Counts)
	for _, c := range []event.Cause{event.CauseBadHandshakeAck, event.CauseCookieInvalid,
		event.CauseNoListener} {
		n -= min(n, harmless(e, c))
	}
	return n
}

// Died sums the counts of a cause, at one stage or at all.
func Died(counts []event.Count, cause event.Cause, stage event.Stage) uint64 {
	var n uint64
	for _, c := range counts {
		if c.Cause == cause && c.Action != event.ActionIgnored &&
			(stage == event.StageUnknown || c.Stage == stage) {
			n += c.Count
		}
	}
	return n
}

// harmless is how many packets of a cause let nobody down.
func harmless(e *Evidence, cause event.Cause) uint64 {
	n := Died(e.Counts, cause, event.StageUnknown)
	switch cause {
	case event.CauseBadHandshakeAck:
		return n - min(n, clientsTryAgain(e)+Spoiled(e))
	case event.CauseCookieInvalid:
		return n - min(n, SpoiltCookies(e))
	case event.CauseNoListener:
		if StraySYNs(e) {
			return n
		}
	}
	return 0
}

// clientsTryAgain is how many handshakes were ended by an RST of a client that then sent its SYN
// again: whoever sent the SYN waits for an answer that another one gets.
func clientsTryAgain(e *Evidence) uint64 {
	var n uint64
	for i := range e.Listeners {
		n += e.Listeners[i].BadAcks.ClientAgain
	}
	return n
}

// Spoiled is how many of the bad handshake packets, those of the clients' own RSTs left out, may
// have cost a handshake: no more than handshakes failed.
func Spoiled(e *Evidence) uint64 {
	n := Died(e.Counts, event.CauseBadHandshakeAck, event.StageUnknown)
	n -= min(n, EndedByClients(e))
	if h := Handshakes(e); h != nil {
		return min(n, h.Died+h.Unanswered+h.Unaccounted)
	}
	return n
}

// EndedByClients is how many handshakes an RST of the client ended.
func EndedByClients(e *Evidence) uint64 {
	var n uint64
	for i := range e.Listeners {
		n += e.Listeners[i].BadAcks.ByClient
	}
	return n
}

// SpoiltCookies is how many of the ACKs that were no valid cookie may have been a client's: no more
// than cookies that did not come back.
func SpoiltCookies(e *Evidence) uint64 {
	n := Died(e.Counts, event.CauseCookieInvalid, event.StageUnknown)
	if h := Handshakes(e); h != nil {
		return min(n, h.Cookies+h.Unaccounted)
	}
	return n
}

// StraySYNs reports whether the SYNs that were refused at closed ports are those that every host
// gets: one client tried many, or nobody asked about these ports, and there are few, or others
// died, or there are listeners to ask about.
func StraySYNs(e *Evidence) bool {
	n := ClosedPorts(e)
	return n > 0 && (Scanned(e) || len(e.Ports) == 0 && (n < fewStray ||
		DiedOfAll(e.Counts) > n || len(e.Listeners) > 0))
}

// Add takes packets that died, if they died as bad handshake packets; counters are those that moved
// with each.
func (b *BadAcks) Add(count event.Count, counters []string) {
	if count.Cause != event.CauseBadHandshakeAck || !slices.Contains(counters,
		event.CounterEmbryonicRsts.String()) {
		return
	}
	if count.Action == event.ActionDropped {
		b.ByClient += count.Count
	} else {
		b.ByServer += count.Count
	}
}

// Record is Add for a packet with a record: two RSTs of one handshake are of a client that sent its
// SYN again in between.
func (b *BadAcks) Record(d *event.Drop) {
	before := b.ByClient
	b.Add(event.Count{Cause: d.Cause, Stage: d.Stage, Action: d.Action, Count: 1},
		d.Kernel.Counters)
	if b.ByClient == before || d.Client == nil {
		return
	}
	if b.clients[*d.Client] && d.Attempt > 1 {
		b.ClientAgain++
	}
	if b.clients == nil {
		b.clients = make(map[event.Endpoint]bool)
	}
	if len(b.clients) < maxEnded {
		b.clients[*d.Client] = true
	}
}

// ClosedPorts is how many SYNs came to ports that nobody listened on.
func ClosedPorts(e *Evidence) uint64 {
	return Died(e.Counts, event.CauseNoListener, event.StageUnknown)
}

// fewStray are as many SYNs to closed ports as scans send.
const fewStray = 3

// Scanned reports whether a single client tried many closed ports.
func Scanned(e *Evidence) bool { return Value(e.ClientsSeen) == 1 && RefusedPorts(e) >= scanPorts }

// maxEnded bounds the clients that are remembered for having ended a handshake.
const maxEnded = 4096

const (

	// scanPorts are as many closed ports as one client tries that looks for open ones.
	scanPorts = 5
)

// RefusedPorts is how many ports were closed to somebody.
func RefusedPorts(e *Evidence) int {
	ports := map[uint16]bool{}
	for _, d := range e.Ingress {
		if d.Cause == event.CauseNoListener {
			ports[d.Server.Port] = true
		}
	}
	return len(ports)
}
