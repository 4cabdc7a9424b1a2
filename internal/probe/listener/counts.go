// SPDX-License-Identifier: Apache-2.0

// Package listener reads what is counted of each listener: drops, arrivals, and the accept side.
package listener

import (
	"errors"
	"fmt"
	"sync"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/load"
	"github.com/synspy/synspy/internal/probe/message"
	"github.com/synspy/synspy/internal/probe/plan"
)

// Counters is what is counted of each listener: drops, arrivals, and what was accepted.
type Counters struct {
	*load.Objects
	Plan     *plan.Plan
	Facts    *facts.Facts
	Accepts  bool       // the accept side is watched
	ByOwner  bool       // owner filters judge listeners
	mu       sync.Mutex // guards what follows
	Departed map[uint64]bpf.SynspyArrivals
	Arrived  map[uint64]bpf.SynspyArrivals // see readArrivals
	Table    ArrivedRows
	resting  resting
	// SYNs to listeners that closed, beyond as many as are kept one by one.
	DepartedSyns uint64
	Side         acceptBooks
	past         past
}

// Count is what was counted for one listener and outcome. Listener is not
// known in the row of other listeners, which takes what the table had no room for.
type Count struct {
	Outcome                     event.Outcome
	Listener                    message.Listener
	Delivered, Suppressed, Lost uint64
	// Again is how many of those suppressed and lost were of handshakes that had lost a packet before.
	Again uint64
}

// Counts returns the counts so far.
func (c *Counters) Counts() ([]Count, error) {
	rows := make(map[bpf.SynspyCountKey]bpf.SynspyCount)
	add := func(key bpf.SynspyCountKey, more *bpf.SynspyCount) {
		sum, known := rows[key]
		if !known {
			sum.Listener = more.Listener
		}
		addCount(&sum, more)
		rows[key] = sum
	}
	err := load.EachRow(c.Objects, "counts", func(key bpf.SynspyCountKey, raw *bpf.SynspyCount) { add(key, raw) })
	if err != nil {
		return nil, err
	}
	err = load.EachRow(c.Objects, "count_places", func(_ uint32, raw *bpf.SynspyCount) { add(raw.Key, raw) })
	if err != nil {
		return nil, err
	}
	var counts []Count
	for key, value := range rows {
		if value.Delivered+value.Suppressed+value.Lost == 0 {
			continue
		}
		counts = append(counts,
			Count{event.Outcome(key.Outcome), message.ListenerOf(&value.Listener),
				value.Delivered, value.Suppressed, value.Lost, value.Again})
	}
	return counts, nil
}

// addCount adds what was counted in another place: two CPUs may make both a row and a place of one key.
func addCount(to, more *bpf.SynspyCount) {
	to.Delivered += more.Delivered
	to.Suppressed += more.Suppressed
	to.Lost += more.Lost
	to.Again += more.Again
}

// takePlace returns what is at a key's place, see count_of in bpf/record.h, and vacates it.
func (c *Counters) takePlace(key bpf.SynspyCountKey) (raw bpf.SynspyCount, err error) {
	places, owners := c.Collection.Maps["count_places"], c.Collection.Maps["count_owners"]
	at := uint32((key.Id^uint64(key.Outcome))*0x9e3779b97f4a7c15>>56) & (places.MaxEntries() - 1)
	if err := places.Lookup(at, &raw); err != nil {
		return raw, fmt.Errorf("read counts: %w", err)
	}
	if raw.Key != key {
		return bpf.SynspyCount{}, nil
	}
	// Whoever finds the place free before its owner is gone as well makes a row.
	if err := errors.Join(places.Put(at, bpf.SynspyCount{}), owners.Delete(at)); err != nil {
		return raw, fmt.Errorf("vacate a place of counts: %w", err)
	}
	return raw, nil
}

// Arrivals is what reached a listener, dropped or not. Socket is zero for the
// listeners that the table had no room for.
type Arrivals struct {
	Socket   uint64
	Syn, Ack uint64
	Entered  uint64 // connections that entered the accept queue, with Config.Accepts
	Again    uint64 // of these, those that had a SYN dropped before, as far as the table of tries knows
}

func arrivalsOf(socket uint64, raw *bpf.SynspyArrivals) Arrivals {
	return Arrivals{socket, raw.Syn, raw.Ack, raw.Entered, raw.CameAgain}
}

// Arrivals returns the arrivals so far, and the number of distinct handshakes
// that lost a packet.
func (c *Counters) Arrivals() (arrivals []Arrivals, handshakes uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if handshakes, err = c.readArrivals(nil); err != nil {
		return nil, 0, err
	}
	for socket, sum := range c.Arrived {
		if sum.Syn+sum.Ack > 0 {
			arrivals = append(arrivals, arrivalsOf(socket, &sum))
		}
	}
	return arrivals, handshakes, nil
}

// ArrivedAt puts into sums, by [Listener.Socket], the arrivals so far at these listeners, and at
// others a part that is at hand; if there are none, at all.
func (c *Counters) ArrivedAt(sockets []uint64, sums map[uint64]Arrivals) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.readArrivals(sockets)
	for socket, sum := range c.Arrived {
		sums[socket] = arrivalsOf(socket, &sum)
	}
	return err
}

// sumTries is how often arrivals are read that are moved meanwhile: some may be missing then.
const sumTries = 3

// readArrivals leaves in c.arrived, under mu, what arrived at these listeners, or at all. A
// listener that departs meanwhile would be in neither place, or in both.
func (c *Counters) readArrivals(sockets []uint64) (handshakes uint64, err error) {
	for range sumTries {
		before, err := c.moves()
		if err != nil {
			return 0, err
		}
		if handshakes, err = c.sumArrivals(sockets, before.ended); err != nil {
			return 0, fmt.Errorf("read arrivals: %w", err)
		}
		after, err := c.moves()
		if err != nil {
			return 0, err
		}
		if before.begun == before.ended && after.begun == before.begun {
			break
		}
	}
	return handshakes, nil
}

// moves counts how often a CPU gave a listener's place to another, and what was counted there
// to the table.
type moves struct{ begun, ended uint64 }

func (c *Counters) moves() (m moves, err error) {
	if err := c.Collection.Variables["moves_begun"].Get(&m.begun); err != nil {
		return m, fmt.Errorf("read moves: %w", err)
	}
	if err := c.Collection.Variables["moves_ended"].Get(&m.ended); err != nil {
		return m, fmt.Errorf("read moves: %w", err)
	}
	return m, nil
}

func (c *Counters) sumArrivals(sockets []uint64, ended uint64) (handshakes uint64,
	err error) {
	clear(c.Arrived)
	add := func(socket uint64, more *bpf.SynspyArrivals) {
		sum := c.Arrived[socket]
		addArrivals(&sum, more)
		c.Arrived[socket] = sum
	}
	for socket, raw := range c.Departed {
		add(socket, &raw)
	}
	if err := c.Table.read(c.Collection.Maps["arrived"], sockets, ended); err != nil {
		return 0, err
	}
	c.Table.each(sockets, add)
	return handshakes, c.EachCPU(func(cpu *bpf.SynspyCpuState) {
		handshakes += cpu.Attempts.Handshakes
		for i := range cpu.Arrivals {
			if a := &cpu.Arrivals[i]; a.Key != 0 {
				add(a.Id, &a.Seen)
			}
		}
	})
}

// addArrivals adds what was counted in another place. Marks are those of the last reading at which
// any were set.
func addArrivals(to, more *bpf.SynspyArrivals) {
	to.Syn += more.Syn
	to.Ack += more.Ack
	to.Entered += more.Entered
	to.CameAgain += more.CameAgain
	if more.Reading > to.Reading {
		to.Reading, to.AcceptMax, to.SynMax = more.Reading, 0, 0
	}
	if more.Reading == to.Reading {
		to.AcceptMax = max(to.AcceptMax, more.AcceptMax)
		to.SynMax = max(to.SynMax, more.SynMax)
	}
}
