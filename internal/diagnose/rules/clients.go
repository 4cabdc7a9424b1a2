// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

// counterChallenges moves with each segment with a SYN that meets a connection of the same
// addresses and ports.
const counterChallenges = "TCPSYNChallenge"

// challenged says that SYNs met connections that exist, where no packet of theirs was seen: before
// Linux 5.17 they are freed without an event. A SYN-ACK that comes again moves the counter as well.
func challenged(e *evidence.Evidence) []*Found {
	n := unseenChallenges(e)
	if n == 0 {
		return nil
	}
	f := newFound(event.FindingOtherDrops, 0)
	f.Severity, f.Confidence = event.SeverityNote, event.ConfidencePossible
	f.Title = fmt.Sprintf("%s came on connections that exist, and were not seen",
		advice.Many(n, "SYN"))
	f.Because = f.Title
	f.saw(counterChallenges+", beyond the packets seen", n, "packets")
	for _, s := range event.SynOnConnection() {
		f.fix(s)
	}
	f.Settles = "tcpdump on the port: a SYN that is answered by an ACK alone; SYN-ACKs that come again, to connections that this host makes, are counted as well"
	return []*Found{f}
}

func unseenChallenges(e *evidence.Evidence) (n uint64) {
	if e.TellsReason("TCP_INVALID_SYN") {
		return 0
	}
	for _, row := range e.Ledger {
		if row.Counter == counterChallenges && !row.Gone {
			n += row.Kernel - min(row.Kernel, row.Synspy)
		}
	}
	return n
}

// clientsEnded reports handshakes that clients ended themselves, by an RST that fits, as soon as
// they had the SYN-ACK.
func clientsEnded(e *evidence.Evidence) []*Found {
	var out []*Found
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
		f.Because = fmt.Sprintf("%s on %s by the client's own RST right after the SYN-ACK",
			ofHandshakes(ended, "ended"), evidence.Where(l.ID))
		f.Title = f.Because
		f.fix("none needed where these are half-open health checks (SYN, SYN-ACK, RST) or a scan: they get what they came for",
			"otherwise compare the clients' connect timeout with the time that their SYN-ACK takes: who gave up resets it as well")
		out = append(out, f)
	}
	return out
}

// answerElsewhere reports clients that reset the SYN-ACK and send their SYN again.
func answerElsewhere(l *evidence.Listener, ended, again uint64) *Found {
	f := newFound(event.FindingReturnPathLost, again).about(l, l.Processes)
	f.saw("handshakes that an RST from the client's side ended", ended, "handshakes")
	f.saw("of them of clients that then sent the same SYN again", again, "handshakes")
	sawKnown(f, "handshakes finished", l.Finished, "handshakes")
	f.Counted = true
	f.Because = fmt.Sprintf("an RST from the clients' side ended %s, and %s of them were of clients that then sent the same SYN again: the answer does not reach who asked",
		advice.Many(ended, "handshake"), evidence.Thousands(again))
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
	return evidence.Thousands(n) + " handshakes were " + became
}
