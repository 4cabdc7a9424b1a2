// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
)

// Count is what was counted for one listener and outcome. Listener is not
// known in the row of other listeners, which takes what the table had no room for.
type Count struct {
	Outcome                     event.Outcome
	Listener                    Listener
	Delivered, Suppressed, Lost uint64
	// Again is how many of those suppressed and lost were of handshakes that had lost a packet before.
	Again uint64
}

// Counts returns the counts so far.
func (p *Probe) Counts() ([]Count, error) {
	var (
		key    bpf.SynspyCountKey
		value  bpf.SynspyCount
		counts []Count
	)
	entries := p.collection.Maps["counts"].Iterate()
	for entries.Next(&key, &value) {
		if value.Delivered+value.Suppressed+value.Lost == 0 {
			continue
		}
		counts = append(counts, Count{event.Outcome(key.Outcome), listenerOf(&value.Listener),
			value.Delivered, value.Suppressed, value.Lost, value.Again})
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	return counts, nil
}

// Arrivals is what reached a listener, dropped or not. Socket is zero for the
// listeners that the table had no room for.
type Arrivals struct {
	Socket   uint64
	Syn, Ack uint64
}

// Arrivals returns the arrivals so far, and the number of distinct handshakes
// that lost a packet.
func (p *Probe) Arrivals() (arrivals []Arrivals, handshakes uint64, err error) {
	sums := make(map[uint64]Arrivals)
	if handshakes, err = p.arrived(nil, sums); err != nil {
		return nil, 0, err
	}
	for _, sum := range sums {
		if sum.Syn+sum.Ack > 0 {
			arrivals = append(arrivals, sum)
		}
	}
	return arrivals, handshakes, nil
}

// ArrivedAt puts into sums, by [Listener.Socket], the arrivals so far at these listeners, and at others whatever is at hand. A few
// are looked up by themselves; if there are none, or many, the whole table is walked, which takes as long as it has room.
func (p *Probe) ArrivedAt(sockets []uint64, sums map[uint64]Arrivals) error {
	_, err := p.arrived(sockets, sums)
	return err
}

// lookedUp is how many rows are looked up rather than found on a walk.
const lookedUp = 16

func (p *Probe) arrived(sockets []uint64, sums map[uint64]Arrivals) (handshakes uint64, err error) {
	add := func(socket, syn, ack uint64) {
		sum := sums[socket]
		sums[socket] = Arrivals{socket, sum.Syn + syn, sum.Ack + ack}
	}
	// A listener that departs meanwhile would be in neither place, or in both.
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.departed {
		add(a.Socket, a.Syn, a.Ack)
	}
	if err := p.flushed(sockets, add); err != nil {
		return 0, fmt.Errorf("read arrivals: %w", err)
	}
	err = p.eachSlot(func(slot *bpf.SynspySlot) {
		handshakes += slot.Handshakes
		for i := range slot.Arrivals {
			if a := &slot.Arrivals[i]; a.Key != 0 {
				add(a.Id, a.Syn, a.Ack)
			}
		}
	})
	if err != nil {
		return 0, fmt.Errorf("read arrivals: %w", err)
	}
	return handshakes, nil
}

// flushed adds what has left the slots for the table.
func (p *Probe) flushed(sockets []uint64, add func(socket, syn, ack uint64)) error {
	table := p.collection.Maps["arrived"]
	if len(sockets) == 0 || len(sockets) > lookedUp {
		return everything(table, func(socket uint64, total *bpf.SynspyArrivals) error {
			add(socket, total.Syn, total.Ack)
			return nil
		})
	}
	for _, socket := range sockets {
		var total bpf.SynspyArrivals
		err := table.Lookup(socket, &total)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		add(socket, total.Syn, total.Ack)
	}
	return nil
}

// eachSlot hands f the slot of each CPU. They are large, and looked at as they come from the kernel.
func (p *Probe) eachSlot(f func(*bpf.SynspySlot)) error {
	raw, err := p.collection.Maps["slots"].LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	const size = (int(unsafe.Sizeof(bpf.SynspySlot{})) + 7) &^ 7 // bpf_percpu_array_copy: round_up(value_size, 8)
	for len(raw) >= size {
		f((*bpf.SynspySlot)(unsafe.Pointer(unsafe.SliceData(raw))))
		raw = raw[size:]
	}
	return nil
}

// Missed is what the kernel side could not keep, and counted instead.
type Missed struct {
	Untracked      uint64 // packets and counter movements of namespaces that no table had room for
	UnlistedDrops  uint64 // packets of listeners that counts had no row for
	UnlistedSyns   uint64 // SYNs to listeners that arrivals had no row for
	Forgotten      uint64 // handshakes that lost a packet, and gave way to newer ones
	ListenersLost  uint64 // openings and closings that the ring buffer had no room for
	RecordsUnowned uint64 // packets that no row of counts had room for
	Skipped        uint64 // runs that the kernel skipped, a program being interrupted by itself
}

// Missed returns what was missed so far.
func (p *Probe) Missed() (m Missed, err error) {
	for _, v := range []struct {
		name string
		to   *uint64
	}{{"untracked", &m.Untracked}, {"unlisted_drops", &m.UnlistedDrops}, {"unlisted_syns", &m.UnlistedSyns},
		{"changes_lost", &m.ListenersLost}, {"uncounted", &m.RecordsUnowned}} {
		if err := p.collection.Variables[v.name].Get(v.to); err != nil {
			return m, fmt.Errorf("read %s: %w", v.name, err)
		}
	}
	m.UnlistedSyns += p.departedSyns
	if err := p.eachSlot(func(slot *bpf.SynspySlot) { m.Forgotten += slot.Forgotten }); err != nil {
		return m, fmt.Errorf("read what was forgotten: %w", err)
	}
	if m.Skipped, err = p.skipped(readSkips); err != nil {
		return m, err
	}
	return m, nil
}
