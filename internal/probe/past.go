// SPDX-License-Identifier: Apache-2.0

package probe

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
func (p *Probe) Forget(sockets []uint64, counts func(Arrivals) bool) (still []uint64, err error) {
	aside, err := p.aside()
	if err != nil {
		return nil, err
	}
	for _, socket := range sockets {
		if aside[socket] {
			still = append(still, socket)
			continue
		}
		if err := p.Depart(socket); err != nil {
			return nil, err
		}
		p.forget(socket, counts)
	}
	return still, nil
}

// aside are the listeners whose arrivals some CPU has not added to their row.
func (p *Probe) aside() (map[uint64]bool, error) {
	aside := make(map[uint64]bool)
	err := p.eachSlot(func(slot *bpf.SynspySlot) {
		for i := range slot.Arrivals {
			if a := &slot.Arrivals[i]; a.Key != 0 {
				aside[a.Id] = true
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read arrivals: %w", err)
	}
	return aside, nil
}

func (p *Probe) forget(socket uint64, counts func(Arrivals) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	arrived := p.departed[socket]
	if arrived.Syn+arrived.Ack > 0 && counts(arrivalsOf(socket, &arrived)) {
		p.past.listeners++
		addArrivals(&p.past.arrived, &arrived)
		accepted := p.accepting.departed[socket]
		addAccepting(&p.past.accepting, &accepted)
	}
	delete(p.departed, socket)
	delete(p.accepting.departed, socket)
	delete(p.accepting.backlog, socket)
}

// Past returns what is known of those that Forget ended.
func (p *Probe) Past() Past {
	p.mu.Lock()
	defer p.mu.Unlock()
	told := Past{Listeners: p.past.listeners, Syn: p.past.arrived.Syn, Ack: p.past.arrived.Ack}
	if !unused(&p.past.arrived, &p.past.accepting) {
		a := p.acceptingOf(&p.past.arrived, &p.past.accepting)
		told.Accepting = &a
	}
	return told
}
