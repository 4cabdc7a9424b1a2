// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"fmt"

	"github.com/synspy/synspy/internal/bpf"
)

// Past is what is known together of listeners that closed, and that nothing is known of one by one any more.
type Past struct {
	Listeners uint64 // that packets reached
	Syn, Ack  uint64
	Accepting *Accepting // nil where no connection entered their accept queues
}

type past struct {
	listeners uint64
	arrived   bpf.SynspyArrivals
	accepting bpf.SynspyAccepting
}

// Forget ends what is known of listeners that closed one by one. What reached those that count is in Past. It returns those
// that it left as they were, since a CPU still has arrivals of theirs aside.
func (c *Counters) Forget(sockets []uint64, counts func(Arrivals) bool) (still []uint64,
	err error) {
	aside, err := c.aside()
	if err != nil {
		return nil, err
	}
	for _, socket := range sockets {
		if aside[socket] {
			still = append(still, socket)
			continue
		}
		if err := c.Depart(socket); err != nil {
			return nil, err
		}
		c.forget(socket, counts)
	}
	return still, nil
}

// aside are the listeners whose arrivals some CPU has not added to their row.
func (c *Counters) aside() (map[uint64]bool, error) {
	aside := make(map[uint64]bool)
	err := c.EachCPU(func(cpu *bpf.SynspyCpuState) {
		for i := range cpu.Arrivals {
			if a := &cpu.Arrivals[i]; a.Key != 0 {
				aside[a.Id] = true
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read arrivals: %w", err)
	}
	return aside, nil
}

func (c *Counters) forget(socket uint64, counts func(Arrivals) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	arrived := c.Departed[socket]
	if arrived.Syn+arrived.Ack > 0 && counts(arrivalsOf(socket, &arrived)) {
		c.past.listeners++
		addArrivals(&c.past.arrived, &arrived)
		accepted := c.Side.Departed[socket]
		addAccepting(&c.past.accepting, &accepted)
	}
	delete(c.Departed, socket)
	delete(c.Side.Departed, socket)
	delete(c.Side.backlog, socket)
}

// Past returns what is known of those that Forget ended.
func (c *Counters) Past() Past {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := Past{Listeners: c.past.listeners, Syn: c.past.arrived.Syn, Ack: c.past.arrived.Ack}
	if !unused(&c.past.arrived, &c.past.accepting) {
		a := c.acceptingOf(&c.past.arrived, &c.past.accepting)
		told.Accepting = &a
	}
	return told
}
