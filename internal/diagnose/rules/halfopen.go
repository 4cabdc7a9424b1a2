// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"

	"github.com/synspy/synspy/internal/diagnose/advice"
	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/event"
)

const (
	// fewCookies are too few to speak of pressure where nothing was dropped.
	fewCookies = 10
	// fewUnanswered are as many SYN-ACKs sent again as an ordinary network loses.
	fewUnanswered = 3
	// partOfSyns is the part of the SYNs that unanswered handshakes must reach to be more than
	// stray ones.
	partOfSyns = 0.05
	// cookiesAlways is the net.ipv4.tcp_syncookies that sends one in answer to every SYN.
	cookiesAlways = 2
	// partOfAcks: of so many unanswered SYN-ACKs an ACK must have been dropped to explain them.
	partOfAcks = 4
)

// halfOpen explains handshakes that were begun and not finished.
func halfOpen(e *evidence.Evidence) []*Found {
	var out []*Found
	for i := range e.Listeners {
		l := &e.Listeners[i]
		disabled := syncookiesDisabled(l)
		pressure := synQueuePressure(e, l)
		if disabled != nil {
			out = append(out, disabled)
			if pressure != nil {
				pressure.Severity = event.SeverityContributing
			}
		}
		if pressure != nil {
			out = append(out, pressure)
		}
		if f := unanswered(e, l); f != nil {
			if pressure != nil && f.Severity == event.SeverityCause &&
				f.ID == event.FindingClientGaveUp {
				f.Severity = event.SeverityContributing // what fills the SYN queue, told there
			}
			out = append(out, f)
		}
	}
	return out
}

func synQueueDrops(l *evidence.Listener) uint64 {
	return l.Dropped(event.CauseSynQueueFull) + l.Dropped(event.CauseSynBacklogReserve)
}

func syncookiesDisabled(l *evidence.Listener) *Found {
	drops := synQueueDrops(l)
	on := l.Sysctls.Syncookies
	// These two branches are only taken with cookies off; the sysctl may have been changed
	// since.
	if drops == 0 {
		return nil
	}
	f := newFound(event.FindingSyncookiesDisabled, drops).about(l, l.Processes)
	f.Confidence = event.ConfidenceProven
	f.saw("SYNs dropped for want of room in the SYN queue", drops, "packets")
	sawKnown(f, "net.ipv4.tcp_syncookies", on, "")
	citeSynQueue(f, l)
	f.Because = "the SYN queue was full and SYN cookies were off"
	if l.HoldsBack() {
		f.Severity = event.SeverityContributing // what fills it is told by heldBack
	}
	if on != nil && *on != 0 {
		f.Because += " at that time"
		f.fix(fmt.Sprintf("leave net.ipv4.tcp_syncookies at %d: it is on now", *on))
		return f
	}
	f.turn(advice.SysctlKnob(l, "net.ipv4.tcp_syncookies", on, 1, l.Processes,
		"a cookie answers a SYN for which there is no room"))
	if n := l.Dropped(event.CauseSynBacklogReserve); n > 0 && l.Sysctls.MaxSynBacklog != nil {
		f.turn(advice.SysctlKnob(l, "net.ipv4.tcp_max_syn_backlog", l.Sysctls.MaxSynBacklog,
			*l.Sysctls.MaxSynBacklog*4, l.Processes,
			"without cookies the last quarter of it is kept for clients seen before"))
	}
	return f
}

func citeSynQueue(f *Found, l *evidence.Listener) {
	var longest, limit uint32
	known := false
	see := func(q *event.SynQueue) {
		if q != nil {
			longest, limit, known = max(longest, q.Len), q.Limit, true
		}
	}
	see(l.ID.SynQueue)
	for _, p := range l.Timeline {
		see(p.SynQueue)
	}
	if known {
		f.saw("longest SYN queue that was read", longest, "handshakes")
		f.saw("SYN queue limit", limit, "handshakes")
	}
	sawKnown(f, "net.ipv4.tcp_max_syn_backlog", l.Sysctls.MaxSynBacklog, "")
	sawKnown(f, "SYNs in the window", l.Syns, "SYNs")
}

func synQueuePressure(e *evidence.Evidence, l *evidence.Listener) *Found {
	drops, cookies := synQueueDrops(l), evidence.Value(l.Cookies)
	if drops == 0 && cookies == 0 {
		return nil
	}
	f := newFound(event.FindingSynQueuePressure, max(drops, cookies)).about(l, l.Processes)
	f.Confidence = event.ConfidenceProven
	sawKnown(f, "SYNs answered by a SYN cookie", l.Cookies, "SYNs")
	if drops > 0 {
		f.saw("SYNs dropped for want of room in the SYN queue", drops, "packets")
	}
	citeSynQueue(f, l)
	sawKnown(f, "handshakes finished", l.Finished, "handshakes")
	if evidence.Value(e.ClientsSeen) > 0 { // of those that a cookie answered nobody knows the addresses
		f.saw("client addresses that lost packets", *e.ClientsSeen, "addresses")
	}
	overflows, there := l.Dropped(event.CauseAcceptQueueFull), l.MostFinished() ||
		cookiesBack(e, l)
	f.Because = "the SYN queue was full of handshakes that clients did not finish"
	f.Settles = "whether the clients are real: those that never finish a handshake are spoofed or have lost the way back"
	switch {
	case drops == 0 && l.Sysctls.Syncookies != nil && *l.Sysctls.Syncookies == cookiesAlways:
		// As it is now: it may have been 1 when the cookies went out.
		f.Severity, f.Confidence = event.SeverityNote, event.ConfidenceLikely
		f.Because = "net.ipv4.tcp_syncookies is 2: a SYN cookie answers every SYN, however much room the SYN queue has"
		f.Title, f.Owner, f.Settles = f.Because, "node", ""
		f.saw("net.ipv4.tcp_syncookies", *l.Sysctls.Syncookies, "")
		f.fix("set net.ipv4.tcp_syncookies to 1, unless this is a test: then a cookie answers only where the SYN queue is full")
		return f
	case l.HoldsBack():
		f.Severity = event.SeverityContributing
		f.Because = "the SYN queue was full of handshakes that TCP_DEFER_ACCEPT holds back"
		f.Title, f.Owner, f.Settles = f.Because, "application", ""
		f.fix("take the option off, or let clients send at once: see the other finding; these clients are real, they acknowledged")
		return f
	case 2*overflows > max(drops, cookies) && evidence.Died(l.Counts,
		event.CauseAcceptQueueFull, event.StageSyn) > 0:
		// Handshakes whose last ACK finds the accept queue full stay half-open: the SYN
		// queue fills behind it. A handshake may then cost several cookies and be dropped
		// once, or the other way round.
		f.Severity, f.Confidence = event.SeverityContributing, event.ConfidenceLikely
		f.Because = "the SYN queue filled behind the full accept queue"
		f.fix("empty the accept queue first: see the other findings")
	case 2*overflows > max(drops, cookies):
		// The accept queue took every SYN: it was not full for long enough for anything to
		// fill behind it.
		f.Severity = event.SeverityContributing
		f.Because = atOnceBegun
		f.fix("see to the accept queue first: the other findings; its limit is the SYN queue's as well")
	case drops == 0 && overflows > 0:
		// The cookies let nobody down: what died did so at the accept queue.
		f.Severity = event.SeverityContributing
		f.Because = "the SYN queue was full as well, and SYN cookies answered"
	case there:
		f.Because = atOnceBegun + ", and clients finished them"
		if drops == 0 {
			f.Severity = event.SeverityNote
		}
	case drops == 0 && cookies < fewCookies:
		f.Severity = event.SeverityNote
	}
	f.Title = f.Because
	if on := l.Sysctls.Syncookies; on != nil && *on == 0 {
		f.fix("turn SYN cookies on: net.ipv4.tcp_syncookies is 0")
	} else {
		f.fix("leave net.ipv4.tcp_syncookies on")
	}
	if !there {
		f.fix("filter the clients upstream where they are spoofed")
		return f // no queue is large enough for those
	}
	f.Owner, f.Settles = "application", ""
	// Where the accept queue overflowed as well, what it needs is told there: it is the same
	// setting.
	if l.Sysctls.Somaxconn != nil && overflows == 0 {
		if limit, ok := l.Limit(); ok && limit < ordinaryLimit &&
			evidence.Value(l.AskedBacklog) < ordinaryLimit {
			f.turn(advice.ListenKnob(l, l.Processes, ordinaryLimit,
				"the SYN queue has the same limit as the accept queue"))
		}
	}
	return f
}

// atOnceBegun is why a SYN queue is full of handshakes of clients who are there.
const atOnceBegun = "more handshakes were begun at once than the SYN queue holds"

// cookiesBack reports whether the clients that a SYN cookie answered are there: nearly all of the
// cookies came back.
func cookiesBack(e *evidence.Evidence, l *evidence.Listener) bool {
	var sent, back uint64 // of the whole namespace: the kernel counts no others
	for _, r := range e.Ledger {
		switch {
		case r.NetNS != l.ID.NetNS:
		case r.Counter == event.CounterSyncookiesSent.String():
			sent += r.Kernel
		case r.Counter == event.CounterSyncookiesRecv.String():
			back += r.Kernel
		}
	}
	n := evidence.Value(l.Cookies)
	return n > 0 && back > 0 && float64(sent-min(sent, back)) <= 0.1*float64(n)
}

// unanswered looks at SYN-ACKs to which no ACK came.
func unanswered(e *evidence.Evidence, l *evidence.Listener) *Found {
	expired := l.Dropped(event.CauseHandshakeExpired)
	unsent := l.UnsentCount()
	again := evidence.Value(l.SynAcksAgain)
	freed, segments := e.Freed(l, (*evidence.Stray).WayOut), e.Freed(l,
		(*evidence.Stray).IsSegment)
	for _, c := range l.Counts {
		// ACKs did come, and were dropped or ignored: then SYN-ACKs are sent again as well.
		if c.Stage == event.StageAck && (c.Cause == event.CauseAcceptQueueFull ||
			c.Cause == event.CauseDeferAccept) {
			again, expired, unsent = 0, 0, 0
		}
	}
	dropped, acks := dropped(freed), dropped(segments)
	if expired == 0 && again < fewUnanswered && dropped == 0 {
		return nil
	}
	weight := max(expired, again)
	if weight == 0 {
		weight = dropped
	}
	here := dropped > 0 || 2*unsent > weight // they did not leave
	stray := l.Syns != nil && float64(weight) < partOfSyns*float64(*l.Syns)
	if expired == 0 && stray && dropped < fewUnanswered {
		return nil
	}
	lost := evidence.Value(l.SynsAgain) >= fewUnanswered &&
		evidence.Value(l.SynsAgain)*4 >= again
	unknown := l.SynsAgain == nil
	nobody := l.Finished != nil && *l.Finished == 0
	// A client whose ACK was dropped does not send its SYN again, and acknowledges each SYN-ACK
	// anew.
	ackless := !here && !lost && acks >= fewUnanswered && partOfAcks*acks >= weight
	id := event.FindingClientGaveUp
	if here || ackless || lost || unknown && nobody {
		id = event.FindingReturnPathLost
	}
	f := newFound(id, weight).about(l, l.Processes)
	sawKnown(f, "SYN-ACKs sent again", l.SynAcksAgain, "packets")
	if expired > unsent {
		f.saw("handshakes that expired unanswered", expired-unsent, "handshakes")
	}
	if unsent > 0 {
		f.saw("handshakes given up by a timer since their SYN-ACK could not be sent again",
			unsent, "handshakes")
	}
	cameAgain := "SYNs that came again though they had been answered"
	if here { // no answer left
		cameAgain = "SYNs that came again"
	}
	sawKnown(f, cameAgain, l.SynsAgain, "SYNs")
	sawKnown(f, "handshakes finished", l.Finished, "handshakes")
	sawKnown(f, "SYNs in the window", l.Syns, "SYNs")
	sawKnown(f, "net.ipv4.tcp_synack_retries", l.Sysctls.SynackRetries, "")
	if unknown {
		f.Confidence = event.ConfidencePossible
		f.Settles = "whether the same clients send their SYN again, and whether the SYN-ACK arrives there: tcpdump at the client"
	}
	if stray {
		f.Severity = event.SeverityNote
	}
	switch {
	case here:
		f.dropsAnswers(l, freed)
		f.Title = f.Because
		return f
	case ackless:
		f.dropsAcks(l, segments)
		f.Title = f.Because
		return f
	case id == event.FindingReturnPathLost:
		watched := ""
		if e.StraysMs != nil {
			watched = ", and none was seen to be dropped on the way out here"
			f.saw("SYN-ACKs dropped on the way out here", uint64(0), "packets")
			f.saw("the way out was watched for", *e.StraysMs, "ms")
		}
		f.Because = "SYN-ACKs did not reach the clients, who sent their SYNs again" +
			watched
		if unknown {
			f.Because = "SYN-ACKs went unanswered: no client acknowledged one" + watched
		}
		f.fix("trace the way back: ip route get "+e.Client(l.ID.Addr)+" in the server's namespace, then tcpdump for the SYN-ACK along the path",
			"look for asymmetric routing, a stateful firewall that saw only one direction, and source addresses changed by NAT")
	default:
		f.leftOrLost(evidence.Value(l.SynsAgain) > 0)
	}
	f.sawQueued(e)
	f.Title = f.Because
	return f
}

// leftOrLost says what unanswered SYN-ACKs and no repeated SYNs may mean. A client whose ACK was
// lost does not send its SYN again either: it believes itself connected. harmed reports whether
// some client is known to wait.
func (f *Found) leftOrLost(harmed bool) {
	f.Because = "SYN-ACKs went unanswered, and the SYNs did not come again: the clients left, or their ACKs were lost here or on the way"
	f.Confidence, f.Doubt = event.ConfidencePossible, true
	if f.Severity == event.SeverityCause && !harmed {
		f.Severity = event.SeverityContributing
	}
	f.fix("look for what drops packets with ACK and without SYN to the listener's port, in its namespace and before it: 'ct state invalid drop', "+
		"tc or XDP at ingress, a firewall that did not see the SYN-ACK",
		"look at what these clients are: whoever scans leaves as well; otherwise compare their connect timeout with the time that their SYN-ACK takes")
	f.Settles = "tcpdump here and at a client: whether it sends the ACK, and whether that arrives"
}
