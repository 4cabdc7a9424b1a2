// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/holders"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
)

// Accepting is the accept side of one listener since Start. Times are in
// nanoseconds.
type Accepting struct {
	Arrivals uint64 // connections that entered the accept queue
	Accepts  uint64
	Again    *uint64     // SYN-ACKs that were sent again, nil where they are not seen
	Asked    *uint64     // SYNs that came again to their half-open handshake, nil where it is not told whose they are
	Proof    event.Proof // of Accepts: ProofReturn, or ProofState where they are inferred; ProofUnknown: not known

	// Timed says that what follows is known: accept() is hooked.
	Timed  bool
	Waits  [len(bpf.SynspyAccepting{}.Waits)]uint64 // by time in the accept queue, see event.WaitBuckets
	Waited uint64                                   // in all
	Last   uint64                                   // CLOCK_MONOTONIC, 0: none yet
	Gap    uint64                                   // the longest between two accepts, 0: there were no two

	// Marked says that connections entered the queue since the last reading, and what
	// it and the SYN queue then held at most.
	Marked    bool
	AcceptMax uint32
	SynMax    uint32
}

// acceptBooks is what is remembered of the accept side, under mu.
type acceptBooks struct {
	backlog  map[uint64]uint32 // in the accept queues at Start, where there was any
	Departed map[uint64]bpf.SynspyAccepting
	reading  uint32
}

func (b *acceptBooks) Begin(found *holders.Found) {
	b.backlog = found.Backlog
	b.Departed = make(map[uint64]bpf.SynspyAccepting)
}

// ErrNoAccepts says that Config.Accepts was not asked for.
var ErrNoAccepts = errors.New("the accept side is not watched")

// Accepting returns the accept side of every listener that connections reached, by
// [Listener.Socket]; 0 is the row of those that the table had no room for. The marks
// begin anew with each reading. With tracepoints it walks every process's open files.
func (c *Counters) Accepting() (map[uint64]Accepting, error) {
	if !c.Accepts {
		return nil, ErrNoAccepts
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.readArrivals(nil); err != nil {
		return nil, err
	}
	taken, err := c.readAccepts()
	if err != nil {
		return nil, err
	}
	rows := make(map[uint64]Accepting)
	add := func(socket uint64) {
		in, out := c.Arrived[socket], taken[socket]
		if !unused(&in, &out) {
			rows[socket] = c.acceptingOf(&in, &out)
		}
	}
	for socket := range c.Arrived {
		add(socket)
	}
	for socket := range taken {
		add(socket)
	}
	c.Side.reading++
	if err := c.Collection.Variables["accept_reading"].Set(c.Side.reading); err != nil {
		return nil, fmt.Errorf("begin marks anew: %w", err)
	}
	if !c.Plan.Attaches(facts.AcceptFunction) && c.SeesEntries() {
		return rows, c.inferAccepts(rows)
	}
	return rows, nil
}

// readAccepts reads what was accepted from each listener, under mu.
func (c *Counters) readAccepts() (map[uint64]bpf.SynspyAccepting, error) {
	taken := maps.Clone(c.Side.Departed)
	add := func(socket uint64, raw *bpf.SynspyAccepting) {
		sum := taken[socket]
		addAccepting(&sum, raw)
		taken[socket] = sum
	}
	if err := load.EachRow(c.Objects, "acceptings", add); err != nil {
		return nil, err
	}
	return taken, load.EachRow(c.Objects, "accept_places",
		func(_ uint32, raw *bpf.SynspyAccepting) {
			if raw.Id != 0 {
				add(raw.Id, raw)
			}
		})
}

// acceptsOf reads what one accepted since it last departed.
func (c *Counters) acceptsOf(socket uint64) (raw bpf.SynspyAccepting, err error) {
	err = c.Collection.Maps["acceptings"].Lookup(socket, &raw)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return raw, fmt.Errorf("read the accept side: %w", err)
	}
	at, _, err := c.acceptPlace(socket)
	addAccepting(&raw, &at)
	return raw, err
}

// acceptPlace returns the row of a listener in accept_places and its key, see accepting_of in
// bpf/accept.h. The row is empty where another listener has the place.
func (c *Counters) acceptPlace(socket uint64) (raw bpf.SynspyAccepting, place uint32,
	err error) {
	place = uint32(socket * 0x9e3779b97f4a7c15 >> 56)
	if err := c.Collection.Maps["accept_places"].Lookup(place, &raw); err != nil {
		return raw, 0, fmt.Errorf("read the accept side: %w", err)
	}
	if raw.Id != socket {
		return bpf.SynspyAccepting{}, place, nil
	}
	return raw, place, nil
}

// vacate takes a listener's row out of accept_places. Whoever finds the place free before its owner
// is gone as well takes another.
func (c *Counters) vacate(socket uint64) (bpf.SynspyAccepting, error) {
	raw, place, err := c.acceptPlace(socket)
	if err != nil || raw.Id == 0 {
		return raw, err
	}
	err = errors.Join(c.Collection.Maps["accept_places"].Put(place, bpf.SynspyAccepting{}),
		c.Collection.Maps["accept_owners"].Delete(place))
	if err != nil {
		return raw, fmt.Errorf("vacate a place of the accept side: %w", err)
	}
	return raw, nil
}

// acceptingOf is what entered a listener's accept queue and what left it, as it is told, under mu.
func (c *Counters) acceptingOf(in *bpf.SynspyArrivals, raw *bpf.SynspyAccepting) Accepting {
	hooked := c.Plan.Attaches(facts.AcceptFunction)
	a := Accepting{Arrivals: in.Entered, Accepts: raw.Accepts, Timed: hooked && c.SeesEntries(),
		Waits: raw.Waits, Waited: raw.Waited, Last: raw.Last, Gap: raw.Gap,
		Marked:    in.Reading == c.Side.reading && in.AcceptMax > 0,
		AcceptMax: in.AcceptMax, SynMax: in.SynMax}
	if hooked {
		a.Proof = event.ProofReturn
	}
	if c.Plan.Attaches(facts.AnswerAgain) {
		n := raw.AnsweredAgain
		a.Again = &n
	}
	if c.seesAskedAgain() {
		n := raw.AskedAgain
		a.Asked = &n
	}
	return a
}

// unused reports whether nothing happened to a listener's accept side.
func unused(in *bpf.SynspyArrivals, raw *bpf.SynspyAccepting) bool {
	return in.Entered == 0 && !happened(raw)
}

// happened reports whether anything was counted in a row.
func happened(raw *bpf.SynspyAccepting) bool {
	return raw.Accepts+raw.AnsweredAgain+raw.AskedAgain > 0
}

// seesAskedAgain reports whether a SYN that meets its own half-open handshake is known to: tcp_check_req tells, or kfree_skb the socket.
func (c *Counters) seesAskedAgain() bool {
	return c.Plan.Backend != facts.Tracepoint || c.Facts.TellSockets()
}

// inferAccepts fills in what was accepted where accept() is not hooked: what entered
// the queue and is not in it any more. Of a listener that closed, or that shares its place with others, it is not known.
func (c *Counters) inferAccepts(rows map[uint64]Accepting) error {
	var list []message.Listener // those that connections reached, and those that may share their place
	err := holders.Each(c.Collection, func(h *holders.Holder) {
		l := &h.Listener
		if _, reached := rows[l.Socket]; reached || l.Reuseport.Members > 1 {
			list = append(list, *l)
		}
	})
	if errors.Is(err, holders.ErrNoIterator) {
		return nil
	}
	if err != nil {
		return err
	}
	shared := c.Undivided(list, nil)
	for i := range list {
		l := &list[i]
		a, ok := rows[l.Socket]
		entered := a.Arrivals + uint64(c.Side.backlog[l.Socket])
		if !ok || shared[l.Socket] || entered < uint64(l.Accept.Len) {
			continue
		}
		a.Accepts, a.Proof = entered-uint64(l.Accept.Len), event.ProofState
		rows[l.Socket] = a
	}
	return nil
}

// departAccepting keeps here what a listener accepted, or, if it is not gone, what it accepted
// before it had a place.
func (c *Counters) departAccepting(socket uint64, gone bool) error {
	if !c.Accepts {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var raw bpf.SynspyAccepting
	if _, err := c.TakeRow("acceptings", socket, &raw); err != nil {
		return err
	}
	if gone {
		at, err := c.vacate(socket)
		if err != nil {
			return err
		}
		addAccepting(&raw, &at)
	}
	if !happened(&raw) {
		return nil
	}
	before, known := c.Side.Departed[socket]
	if !known && len(c.Side.Departed) >= departedAtMost {
		socket = 0
		before = c.Side.Departed[0]
	}
	addAccepting(&raw, &before)
	c.Side.Departed[socket] = raw
	return nil
}

// addAccepting adds what an earlier row of the same listener had.
func addAccepting(to, before *bpf.SynspyAccepting) {
	to.Accepts += before.Accepts
	to.Waited += before.Waited
	to.AnsweredAgain += before.AnsweredAgain
	to.AskedAgain += before.AskedAgain
	for i := range to.Waits {
		to.Waits[i] += before.Waits[i]
	}
	to.Last = max(to.Last, before.Last)
	to.Gap = max(to.Gap, before.Gap)
}

// LastAccepts is when a process last accepted from a listener: a CLOCK_MONOTONIC
// time in nanoseconds for each of the last few spans of 17 ms in which it did, ascending.
// Start, its start_boottime, tells it from another that had the number.
type LastAccepts struct {
	PID   uint32
	Start uint64
	Times []uint64
}

// LastAccepts returns it for those of the processes that accepted. It costs a system
// call for each.
func (c *Counters) LastAccepts(socket uint64, pids []uint32) ([]LastAccepts, error) {
	if !c.Accepts || !c.Plan.Attaches(facts.AcceptFunction) {
		return nil, nil
	}
	var found []LastAccepts
	for _, pid := range pids {
		var raw bpf.SynspyAcceptor
		err := c.Collection.Maps["acceptors"].Lookup(bpf.SynspyAcceptorKey{Id: socket,
			Pid: pid}, &raw)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read last accepts: %w", err)
		}
		times := slices.DeleteFunc(slices.Sorted(slices.Values(raw.Spans[:])),
			func(at uint64) bool { return at == 0 })
		found = append(found, LastAccepts{pid, raw.Start, times})
	}
	return found, nil
}
