// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"unsafe"

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
	Entered  uint64 // connections that entered the accept queue, with Config.Accepts
	Again    uint64 // of these, those that had a SYN dropped before, as far as the table of tries knows
}

func arrivalsOf(socket uint64, raw *bpf.SynspyArrivals) Arrivals {
	return Arrivals{socket, raw.Syn, raw.Ack, raw.Entered, raw.CameAgain}
}

// Arrivals returns the arrivals so far, and the number of distinct handshakes
// that lost a packet.
func (p *Probe) Arrivals() (arrivals []Arrivals, handshakes uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if handshakes, err = p.readArrivals(nil); err != nil {
		return nil, 0, err
	}
	for socket, sum := range p.arrived {
		if sum.Syn+sum.Ack > 0 {
			arrivals = append(arrivals, arrivalsOf(socket, &sum))
		}
	}
	return arrivals, handshakes, nil
}

// ArrivedAt puts into sums, by [Listener.Socket], the arrivals so far at these listeners, and at
// others a part that is at hand; if there are none, at all.
func (p *Probe) ArrivedAt(sockets []uint64, sums map[uint64]Arrivals) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.readArrivals(sockets)
	for socket, sum := range p.arrived {
		sums[socket] = arrivalsOf(socket, &sum)
	}
	return err
}

// sumTries is how often arrivals are read that are moved meanwhile: some may be missing then.
const sumTries = 3

// readArrivals leaves in p.arrived, under mu, what arrived at these listeners, or at all. A
// listener that departs meanwhile would be in neither place, or in both.
func (p *Probe) readArrivals(sockets []uint64) (handshakes uint64, err error) {
	for range sumTries {
		before, err := p.moves()
		if err != nil {
			return 0, err
		}
		if handshakes, err = p.sumArrivals(sockets, before.ended); err != nil {
			return 0, fmt.Errorf("read arrivals: %w", err)
		}
		after, err := p.moves()
		if err != nil {
			return 0, err
		}
		if before.begun == before.ended && after.begun == before.begun {
			break
		}
	}
	return handshakes, nil
}

// moves counts how often a CPU's slot gave a listener's place to another, and what was counted there
// to the table.
type moves struct{ begun, ended uint64 }

func (p *Probe) moves() (m moves, err error) {
	if err := p.collection.Variables["moves_begun"].Get(&m.begun); err != nil {
		return m, fmt.Errorf("read moves: %w", err)
	}
	if err := p.collection.Variables["moves_ended"].Get(&m.ended); err != nil {
		return m, fmt.Errorf("read moves: %w", err)
	}
	return m, nil
}

func (p *Probe) sumArrivals(sockets []uint64, ended uint64) (handshakes uint64, err error) {
	clear(p.arrived)
	add := func(socket uint64, more *bpf.SynspyArrivals) {
		sum := p.arrived[socket]
		addArrivals(&sum, more)
		p.arrived[socket] = sum
	}
	for socket, raw := range p.departed {
		add(socket, &raw)
	}
	if err := p.table.read(p.collection.Maps["arrived"], sockets, ended); err != nil {
		return 0, err
	}
	p.table.each(sockets, add)
	return handshakes, p.eachSlot(func(slot *bpf.SynspySlot) {
		handshakes += slot.Handshakes
		for i := range slot.Arrivals {
			if a := &slot.Arrivals[i]; a.Key != 0 {
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
	Unanswered     uint64 // SYNs told of as dropped that may have been rejected
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
	if m.Unanswered, err = p.unanswered(); err != nil {
		return m, err
	}
	if m.Skipped, err = p.skipped(readSkips); err != nil {
		return m, err
	}
	return m, nil
}
