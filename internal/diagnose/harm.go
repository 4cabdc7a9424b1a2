// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// A verdict weighs handshakes that failed for a client, not packets: of these causes packets die that nobody waits for.

// failed is how many packets died whose client may have been let down by it.
func failed(e *Evidence) uint64 {
	n := diedOfAll(e.Counts)
	for _, c := range []event.Cause{event.CauseBadHandshakeAck, event.CauseCookieInvalid, event.CauseNoListener} {
		n -= min(n, harmless(e, c))
	}
	return n
}

// harmless is how many packets of a cause let nobody down.
func harmless(e *Evidence, cause event.Cause) uint64 {
	n := died(e.Counts, cause, event.StageUnknown)
	switch cause {
	case event.CauseBadHandshakeAck:
		return n - min(n, clientsTryAgain(e)+spoiled(e))
	case event.CauseCookieInvalid:
		return n - min(n, spoiltCookies(e))
	case event.CauseNoListener:
		if straySYNs(e) {
			return n
		}
	}
	return 0
}

// clientsTryAgain is how many handshakes were ended by an RST of a client that then sent its SYN again: whoever sent the SYN
// waits for an answer that another one gets.
func clientsTryAgain(e *Evidence) uint64 {
	var n uint64
	for i := range e.Listeners {
		n += e.Listeners[i].BadAcks.ClientAgain
	}
	return n
}

// spoiled is how many of the bad handshake packets, those of the clients' own RSTs left out, may have cost a handshake: no more
// than handshakes failed.
func spoiled(e *Evidence) uint64 {
	n := died(e.Counts, event.CauseBadHandshakeAck, event.StageUnknown)
	n -= min(n, endedByClients(e))
	if h := handshakes(e); h != nil {
		return min(n, h.Died+h.Unanswered+h.Unaccounted)
	}
	return n
}

// endedByClients is how many handshakes an RST of the client ended.
func endedByClients(e *Evidence) uint64 {
	var n uint64
	for i := range e.Listeners {
		n += e.Listeners[i].BadAcks.ByClient
	}
	return n
}

// spoiltCookies is how many of the ACKs that were no valid cookie may have been a client's: no more than cookies that did not
// come back.
func spoiltCookies(e *Evidence) uint64 {
	n := died(e.Counts, event.CauseCookieInvalid, event.StageUnknown)
	if h := handshakes(e); h != nil {
		return min(n, h.Cookies+h.Unaccounted)
	}
	return n
}

const (
	// fewStray are as many SYNs to closed ports as scans send.
	fewStray = 3
	// scanPorts are as many closed ports as one client tries that looks for open ones.
	scanPorts = 5
)

// straySYNs tells whether the SYNs that were refused at closed ports are those that every host gets: one client tried many, or
// nobody asked about these ports, and there are few, or others died, or there are listeners to ask about.
func straySYNs(e *Evidence) bool {
	n := closedPorts(e)
	return n > 0 && (scanned(e) || len(e.Ports) == 0 && (n < fewStray || diedOfAll(e.Counts) > n || len(e.Listeners) > 0))
}

// scanned tells whether a single client tried many closed ports.
func scanned(e *Evidence) bool { return value(e.ClientsSeen) == 1 && refusedPorts(e) >= scanPorts }

// refusedPorts is how many ports were closed to somebody.
func refusedPorts(e *Evidence) int {
	ports := map[uint16]bool{}
	for _, d := range e.Ingress {
		if d.Cause == event.CauseNoListener {
			ports[d.Server.Port] = true
		}
	}
	return len(ports)
}

// clientsEnded tells of handshakes that clients ended themselves, by an RST that fits, as soon as they had the SYN-ACK.
func clientsEnded(e *Evidence) []*found {
	var out []*found
	for i := range e.Listeners {
		l := &e.Listeners[i]
		ended, again := l.BadAcks.ByClient, l.BadAcks.ClientAgain
		if again > 0 {
			out = append(out, answerElsewhere(l, ended, again))
			continue
		}
		if ended == 0 {
			continue
		}
		f := newFound(event.FindingClientGaveUp, ended).about(l, l.Processes)
		f.Severity, f.Confidence = event.SeverityNote, event.ConfidenceProven
		f.saw("handshakes that the client's own RST ended", ended, "handshakes")
		sawKnown(f, "SYNs in the window", l.Syns, "SYNs")
		sawKnown(f, "handshakes finished", l.Finished, "handshakes")
		f.because = fmt.Sprintf("%s on %s by the client's own RST right after the SYN-ACK", ofHandshakes(ended, "ended"), where(l.ID))
		f.Title = f.because
		f.fix("none needed where these are half-open health checks (SYN, SYN-ACK, RST) or a scan: they get what they came for",
			"otherwise compare the clients' connect timeout with the time that their SYN-ACK takes: who gave up resets it as well")
		out = append(out, f)
	}
	return out
}

// answerElsewhere tells of clients that reset the SYN-ACK and send their SYN again.
func answerElsewhere(l *Listener, ended, again uint64) *found {
	f := newFound(event.FindingReturnPathLost, again).about(l, l.Processes)
	f.saw("handshakes that an RST from the client's side ended", ended, "handshakes")
	f.saw("of them of clients that then sent the same SYN again", again, "handshakes")
	sawKnown(f, "handshakes finished", l.Finished, "handshakes")
	f.counted = true
	f.because = fmt.Sprintf("an RST from the clients' side ended %s, and %s of them were of clients that then sent the same SYN again: the answer does not reach who asked",
		many(ended, "handshake"), thousands(again))
	f.Title = "SYN-ACKs are reset on the clients' side"
	f.fix("compare the source address of the SYN-ACK with the address that clients connect to: NAT that sees one direction only answers from another one",
		"look for a firewall or a second host with the client's address that sends the RST: tcpdump at the client")
	f.Settles = "tcpdump at the client: whether the SYN-ACK comes from the address and port that the SYN was sent to"
	return f
}

// ofHandshakes says what became of some: "1 handshake was ended".
func ofHandshakes(n uint64, became string) string {
	if n == 1 {
		return "1 handshake was " + became
	}
	return thousands(n) + " handshakes were " + became
}

// Add takes packets that died, if they died as bad handshake packets; counters are those that moved with each.
func (b *BadAcks) Add(count event.Count, counters []string) {
	if count.Cause != event.CauseBadHandshakeAck || !slices.Contains(counters, event.CounterEmbryonicRsts.String()) {
		return
	}
	if count.Action == event.ActionDropped {
		b.ByClient += count.Count
	} else {
		b.ByServer += count.Count
	}
}

// Record is Add for a packet with a record: two RSTs of one handshake are of a client that sent its SYN again in between.
func (b *BadAcks) Record(d *event.Drop) {
	before := b.ByClient
	b.Add(event.Count{Cause: d.Cause, Stage: d.Stage, Action: d.Action, Count: 1}, d.Kernel.Counters)
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

// maxEnded bounds the clients that are remembered for having ended a handshake.
const maxEnded = 4096
