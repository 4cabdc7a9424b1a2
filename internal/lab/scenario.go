// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/synspy/synspy/internal/event"
)

// Scenario is one way a handshake dies, or seems to and does not.
type Scenario struct {
	Name    string // as on the command line
	Title   string // a few words
	Explain string // what is played and what it shows
	// Play runs the scenario in a fresh World. It returns an error when the
	// kernel did not answer as the scenario needs. Servers keep running until
	// the World is closed: closing a listener is a drop cause of its own.
	Play func(ctx context.Context, w *World, log func(string, ...any)) (Expectation, error)
	// Prepare, if not nil, is for before anyone looks: the kernel loads then what it
	// loads on demand. Its error may wrap ErrCannotHold, too.
	Prepare func(w *World) error
}

// Queue is a queue of a listener when the packet died.
type Queue struct{ Len, Limit int }

// Expect is one group of records. Zero values of Listener, AcceptQueue,
// SynQueue, Clients, Attempts and PIDs mean "not known beforehand".
type Expect struct {
	Cause  event.Cause
	Stage  event.Stage // StageUnknown: any of the cause's stages
	Action event.Action
	Count  int

	Listener    netip.AddrPort // the address it is bound to
	AcceptQueue Queue
	SynQueue    Queue
	Clients     []netip.AddrPort // of each record, in order; IPv4 as IPv4, even to an IPv6 listener
	AnyOrder    bool             // Clients in any order: timers of the same tick expire as they like
	Attempts    []int            // of each record, in order
	PIDs        []int            // processes that hold the listener
	Hook        string           // of netfilter
	Refusal     string           // what answers in place of the listener
	Sees        string           // the client
	OrNoOwner   bool             // a backend that is not given the listener need not find it, but must name no other
}

// Expectation is all that a scenario's tracer must find.
type Expectation struct {
	Records []Expect
	// Counters has all ten of the closed list: how far the kernel moves each
	// from the moment Play starts.
	Counters map[event.Counter]uint64
	// Cookies counts the SYNs answered by a SYN cookie.
	Cookies int
	// Syns counts the SYN packets that the clients sent, all of which reached
	// IP; 0: unknown.
	Syns int
	// Handshakes counts the distinct (4-tuple, ISN) among the records; 0 with
	// records: unknown.
	Handshakes int
	// FromCounters says that ordinary clients were used: Counters, and the
	// counts of Records, are what the kernel counted while Play ran, and not
	// known beforehand. The network is cut when Play returns, so neither moves
	// any more.
	FromCounters bool
	// PIDs are all processes that hold a listener; Comms are their names.
	PIDs  []int
	Comms map[int]string
	// Quiet are namespaces that were busy meanwhile and must not show up.
	Quiet []uint64
}

// Scenarios lists all scenarios, the ones that need no explanation first.
func Scenarios() []Scenario {
	return slices.Concat(queueScenarios(), pathScenarios(), lsmScenarios(), ingressScenarios())
}

// queueScenarios are those of full queues, and of what only looks like one.
func queueScenarios() []Scenario {
	return []Scenario{
		{
			Name: "accept-queue-full-syn", Title: "SYN into a full accept queue",
			Explain: "listen(fd, 3) and nobody accepts: 4 handshakes fill the queue, 5 further SYNs are dropped unanswered.",
			Play:    playAcceptQueueFullSyn,
		},
		{
			Name: "accept-queue-full-ack", Title: "handshake ACK into a full accept queue",
			Explain: "10 clients get a SYN-ACK from listen(fd, 3), some of them a SYN cookie; 4 of their ACKs fit, 6 are dropped although the client is connected by then. 5 further SYNs are dropped too.",
			Play:    playAcceptQueueFullAck,
		},
		{
			Name: "accept-queue-full-ack-reset", Title: "the same with tcp_abort_on_overflow=1",
			Explain: "Half-open handshakes whose ACK meets a full accept queue are reset; the client sees the RST just after it connected.",
			Play:    playAcceptQueueFullAckReset,
		},
		{
			Name: "accept-queue-full-cookie-ack", Title: "SYN cookie ACK into a full accept queue",
			Explain: "With tcp_syncookies=2 every SYN-ACK is a cookie; 6 of 10 ACKs are dropped without an RST, tcp_abort_on_overflow=1 notwithstanding, and the server never retransmits.",
			Play:    playAcceptQueueFullCookieAck,
		},
		{
			Name: "accept-queue-full-ipv6", Title: "handshake ACK into a full accept queue, IPv6",
			Explain: "accept-queue-full-ack with IPv6 clients.",
			Play:    playAcceptQueueFullIPv6,
		},
		{
			Name: "accept-queue-full-v4mapped", Title: "IPv4 clients of an IPv6 listener",
			Explain: "accept-queue-full-ack with IPv4 clients of a dual-stack [::] listener.",
			Play:    playAcceptQueueFullV4Mapped,
		},
		{
			Name: "syn-queue-full", Title: "SYN queue full, cookies off",
			Explain: "Half-open handshakes fill the SYN queue of listen(fd, 8); with tcp_syncookies=0 all further SYNs are dropped.",
			Play:    playSynQueueFull,
		},
		{
			Name: "cookie-answered-syn", Title: "SYN queue full, cookies on: no drop",
			Explain: "The SYN queue of listen(fd, 8) is full, but SYN cookies answer every further SYN: nothing is dropped, and a tool that only looks at the queue is wrong.",
			Play:    playCookieAnsweredSyn,
		},
		{
			Name: "retransmit", Title: "one client, four dropped SYNs",
			Explain: "The same SYN is retransmitted into a full accept queue: four dropped packets, attempts 1 to 4, one handshake.",
			Play:    playRetransmit,
		},
		{
			Name: "syn-retransmit-answered", Title: "SYN retransmitted after its answer: no drop",
			Explain: "A SYN that meets its own half-open handshake is answered again or rate-limited; nothing is dropped.",
			Play:    playSynRetransmitAnswered,
		},
		{
			Name: "reuseport-one-full", Title: "one SO_REUSEPORT member full",
			Explain: "Two processes share a port by SO_REUSEPORT; one accepts, the other is stuck and its queue full. Only clients that hash to the stuck one are dropped.",
			Play:    playReuseportOneFull,
		},
		{
			Name: "reuseport-bound", Title: "a listener bound to the device gets nothing",
			Explain: "Two processes listen on a port with SO_REUSEPORT, the first bound to the device, so in groups of their own. The kernel asks who listened last first, and gives all SYNs to that group, though the other fits better; its queue is full.",
			Play:    playReuseportBound,
		},
		{
			Name: "vrf-bound", Title: "two listeners, one in a VRF",
			Explain: "The device is part of a VRF; one process listens on it, another on the same port outside. SYNs that come through the VRF are for the first alone, whose queue is full.",
			Play:    playVRF,
		},
		{
			Name: "steered", Title: "a program gives SYNs to another listener",
			Explain: "An sk_lookup program gives the SYNs for one listener's port to another one, whose queue is full. Where the kernel does not tell whom it dropped them for, nobody is named: not the one whose port it is.",
			Play:    playSteered,
		},
		{
			Name: "two-ports", Title: "two listeners overflow",
			Explain: "Two ports of one namespace overflow, 5 and 3 SYNs are dropped; with a filter on one port the other's are counted as filtered. The process name is hostile to terminals.",
			Play:    playTwoPorts,
		},
		{
			Name: "other-namespace", Title: "another namespace busy on the same address",
			Explain: "A second namespace with the same addresses and port serves healthy traffic meanwhile; it contributes nothing.",
			Play:    playOtherNamespace,
		},
		{
			Name: "slow-accept", Title: "a server that accepts too slowly",
			Explain: "An ordinary server with listen(fd, 1) sleeps 5 s after each accept() while 20 ordinary clients at a time connect over loopback: most time out, or believe they are connected while the server knows nothing of them.",
			Play:    playSlowAccept(slowAccept),
		},
		{
			Name: "slow-accept-abort", Title: "the same with tcp_abort_on_overflow=1",
			Explain: "slow-accept with tcp_abort_on_overflow=1 and 2 distant clients, whose ACK arrives when the queue is full: they are reset, the near ones mostly hang or time out all the same.",
			Play:    playSlowAccept(slowAcceptAbort),
		},
	}
}

// Find returns the scenario of that name.
func Find(name string) (Scenario, bool) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}

// counters completes a set of counters: what it does not name does not move.
func counters(moved map[event.Counter]uint64) map[event.Counter]uint64 {
	all := make(map[event.Counter]uint64, event.NumCounters)
	for c := range event.NumCounters {
		all[c] = moved[c]
	}
	return all
}

// since returns how far the namespace's counters moved.
func (w *World) since(before map[event.Counter]uint64) (map[event.Counter]uint64, error) {
	after, err := w.Counters()
	if err != nil {
		return nil, err
	}
	for c := range after {
		after[c] -= before[c]
	}
	return after, nil
}

// owners fills in the processes of an expectation.
func (e *Expectation) owners(servers ...*Server) {
	e.Comms = make(map[int]string, len(servers))
	for _, s := range servers {
		e.PIDs = append(e.PIDs, s.PID)
		e.Comms[s.PID] = s.Comm
	}
}

// sysctls sets name, value pairs.
func (w *World) sysctls(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := w.Sysctl(pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// split divides clients by a property, keeping their order.
func split(clients []*Client, property func(*Client) bool) (with, without []*Client) {
	for _, c := range clients {
		if property(c) {
			with = append(with, c)
		} else {
			without = append(without, c)
		}
	}
	return with, without
}

// wantAnswers fails unless exactly n of the clients got a SYN-ACK.
func wantAnswers(clients []*Client, n int) error {
	answered, _ := split(clients, (*Client).Answered)
	if len(answered) != n {
		return fmt.Errorf("%d of %d SYNs were answered, expected %d", len(answered), len(clients), n)
	}
	return nil
}

// unanswered sends a burst of which no SYN may be answered.
func (w *World) unanswered(ctx context.Context, server netip.AddrPort, n int) ([]*Client, error) {
	clients, err := w.Burst(ctx, server, n)
	if err != nil {
		return nil, err
	}
	return clients, wantAnswers(clients, 0)
}

// addresses lists the clients' own addresses.
func addresses(clients []*Client) []netip.AddrPort {
	list := make([]netip.AddrPort, len(clients))
	for i, c := range clients {
		list[i] = c.Local
	}
	return list
}

// first returns attempt 1 for each of n records.
func first(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = 1
	}
	return list
}
