// SPDX-License-Identifier: Apache-2.0

// Package scenario is what a scenario of the lab is: how it is played, what must be seen of it, and
// the steps that many share.
package scenario

import (
	"context"
	"net/netip"

	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/lab/server"
	"github.com/synspy/synspy/internal/lab/world"
)

// Scenario is one way a handshake dies, or seems to and does not.
type Scenario struct {
	Name    string // as on the command line
	Title   string // a few words
	Explain string // what is played and what it shows
	// Play runs the scenario in a fresh World. It returns an error when the
	// kernel did not answer as the scenario needs. Servers keep running until
	// the World is closed: closing a listener is a drop cause of its own.
	Play func(ctx context.Context, w *world.World, log func(string, ...any)) (Expectation,
		error)
	// Prepare, if not nil, is for before anyone looks: the kernel loads then what it
	// loads on demand. Its error may wrap ErrCannotHold, too.
	Prepare func(w *world.World) error
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

// Owners fills in the processes of an expectation.
func (e *Expectation) Owners(servers ...*server.Server) {
	e.Comms = make(map[int]string, len(servers))
	for _, s := range servers {
		e.PIDs = append(e.PIDs, s.PID)
		e.Comms[s.PID] = s.Comm
	}
}

// PlayFunc is a scenario's Play.
type PlayFunc = func(ctx context.Context, w *world.World, log func(string, ...any)) (Expectation,
	error)
