// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
)

// Those that are gone are looked for when a packet found no room, and once the tables are a quarter full: whenever
// this part of them was taken since, and now and then.
const (
	retirePart  = 16
	retireEvery = 10 * time.Second
)

// retiredAtMost is how many namespaces that are gone are remembered one by one.
const retiredAtMost = 4096

// retirement is what is known of the last look.
type retirement struct {
	used, untracked uint64
	at              time.Time
}

// Retire makes room in the kernel side's tables. What was counted in namespaces that
// are gone is kept here, if it was anything. It costs next to nothing while there are few.
func (p *Probe) Retire() error {
	due, err := p.retireDue()
	if !due || err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	books, err := p.readBooks()
	if err != nil {
		return err
	}
	var all map[uint64]*counted
	run := p.anyCPU()
	for i := range books {
		b := &books[i]
		answer, err := run.ask(bpf.SynspyRequestREQUEST_ALIVE, b.id, b.namespace)
		if err != nil {
			return err
		}
		if answer != bpf.SynspyAnswerANSWER_GONE {
			continue
		}
		if all == nil { // nothing is counted any more in those that are gone
			if all, err = p.readCounted(); err != nil {
				return err
			}
		}
		if err := p.retire(b, all[b.id]); err != nil {
			return err
		}
	}
	p.retirement.used, err = p.usedRows()
	return err
}

// retireDue tells whether it is time to.
func (p *Probe) retireDue() (bool, error) {
	used, err := p.usedRows()
	if err != nil {
		return false, err
	}
	var untracked uint64
	if err := p.collection.Variables["untracked"].Get(&untracked); err != nil {
		return false, fmt.Errorf("read untracked: %w", err)
	}
	last, total := p.retirement, uint64(p.sizes.openings+p.sizes.tallies)
	due := untracked != last.untracked ||
		used > total/4 && (used > last.used+total/retirePart || time.Since(last.at) > retireEvery)
	if due {
		p.retirement = retirement{used, untracked, time.Now()}
	}
	return due, nil
}

// usedRows is how many rows the namespaces have in both of their tables.
func (p *Probe) usedRows() (used uint64, err error) {
	for _, table := range []string{"openings", "tallies"} {
		var made uint64
		if err := p.collection.Variables[table+"_made"].Get(&made); err != nil {
			return 0, fmt.Errorf("count the rows of %s: %w", table, err)
		}
		used += made + uint64(p.held[table])
	}
	return used, nil
}

// retire takes a namespace's rows, which it may have none of, out of the kernel side's tables.
func (p *Probe) retire(b *book, rows *counted) error {
	b.gone = true
	b.count(rows)
	switch {
	case b.empty():
	case len(p.retired) < retiredAtMost:
		p.retired = append(p.retired, *b)
	default:
		p.retiredOthers.merge(b)
	}
	delete(p.books, b.id)
	delete(p.idle, b.id)
	errs := []error{p.collection.Maps["openings"].Delete(b.id), p.holdRows("openings", -1)}
	if rows != nil {
		for _, cpu := range rows.cpus {
			errs = append(errs, p.collection.Maps["tallies"].Delete(bpf.SynspyPlaceKey{Id: b.id, Cpu: cpu}))
		}
		errs = append(errs, p.holdRows("tallies", -int64(len(rows.cpus))))
		for o, n := range rows.filtered {
			if n > 0 {
				errs = append(errs, p.collection.Maps["withheld"].Delete(bpf.SynspyCountKey{Id: b.id, Outcome: uint32(o)}))
			}
		}
	}
	for cpu := range p.cpus {
		errs = append(errs, p.collection.Maps["bases"].Delete(bpf.SynspyPlaceKey{Id: b.id, Cpu: uint64(cpu)}))
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("retire namespace %d: %w", b.inode, err)
		}
	}
	return nil
}

// Depart keeps here what is known of a listener that has closed, to make room for
// others. What still arrives for it is added.
func (p *Probe) Depart(socket uint64) error {
	if err := p.departAccepting(socket, true); err != nil {
		return err
	}
	if p.config.Filter.ByOwner {
		if err := p.collection.Maps["wanted"].Delete(socket); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget the verdict on a listener: %w", err)
		}
	}
	return p.departArrivals(socket)
}

// departedAtMost is how many listeners' sums are kept here one by one.
const departedAtMost = 1 << 17

func (p *Probe) departArrivals(socket uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table.forget(socket)
	var total bpf.SynspyArrivals
	if ok, err := p.take("arrived", socket, &total); err != nil || !ok {
		return err
	}
	if _, known := p.departed[socket]; !known && len(p.departed) >= departedAtMost {
		socket = 0
		p.departedSyns += total.Syn
	}
	sum := p.departed[socket]
	addArrivals(&sum, &total)
	p.departed[socket] = sum
	return nil
}

// Take returns a row of Counts as it is by now, and takes it out of the kernel side's
// table.
func (p *Probe) Take(c Count) (Count, error) {
	key := bpf.SynspyCountKey{Id: c.Listener.Socket, Outcome: uint32(c.Outcome)}
	var value bpf.SynspyCount
	p.mu.Lock()
	defer p.mu.Unlock()
	ok, err := p.take("counts", key, &value)
	if ok {
		c.Delivered, c.Suppressed, c.Lost, c.Again = value.Delivered, value.Suppressed, value.Lost, value.Again
	}
	return c, err
}

// Crowded tells whether a table of listeners is so full that rows in which nothing changes should make room.
func (p *Probe) Crowded(table string) (bool, error) {
	var made uint64
	if err := p.collection.Variables[table+"_made"].Get(&made); err != nil {
		return false, fmt.Errorf("count the rows of %s: %w", table, err)
	}
	return made+uint64(p.held[table]) > uint64(room(p.collection.Maps[table].MaxEntries())), nil
}

// MakeRoom keeps here what is known of listeners to which nothing happened since it was last called, where the
// tables are crowded: theirs are sums, which begin anew.
func (p *Probe) MakeRoom() error {
	rest := []struct {
		table  string
		at     *map[uint64]uint64 // what each had at the last call
		read   func() (map[uint64]uint64, error)
		depart func(uint64) error
	}{
		{"arrived", &p.resting.arrived, p.arrivedNow, p.departArrivals},
		{"acceptings", &p.resting.accepted, p.acceptedNow, func(socket uint64) error { return p.departAccepting(socket, false) }},
	}
	for _, r := range rest {
		if r.table == "acceptings" && !p.config.Accepts {
			continue
		}
		crowded, err := p.Crowded(r.table)
		if err != nil {
			return err
		}
		if !crowded {
			*r.at = nil
			continue
		}
		now, err := r.read()
		if err != nil {
			return err
		}
		for socket, n := range now {
			if before, known := (*r.at)[socket]; known && before == n && socket != 0 {
				if err := r.depart(socket); err != nil {
					return err
				}
			}
		}
		*r.at = now
	}
	return nil
}

// resting is what MakeRoom found at its last call; nil where there was room enough.
type resting struct{ arrived, accepted map[uint64]uint64 }

func (p *Probe) arrivedNow() (map[uint64]uint64, error) {
	now := make(map[uint64]uint64)
	err := eachRow(p, "arrived", func(socket uint64, raw *bpf.SynspyArrivals) { now[socket] = raw.Syn + raw.Ack })
	return now, err
}

func (p *Probe) acceptedNow() (map[uint64]uint64, error) {
	now := make(map[uint64]uint64)
	err := eachRow(p, "acceptings", func(socket uint64, raw *bpf.SynspyAccepting) {
		now[socket] = raw.Accepts + raw.AnsweredAgain + raw.AskedAgain
	})
	return now, err
}

// eachRow hands over the rows of a table of listeners.
func eachRow[K, V any](p *Probe, table string, f func(K, *V)) error {
	var (
		key   K
		value V
	)
	entries := p.collection.Maps[table].Iterate()
	for entries.Next(&key, &value) {
		f(key, &value)
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read %s: %w", table, err)
	}
	return nil
}

// take reads a value and deletes it, under mu; false if there is none.
func (p *Probe) take(table string, key, value any) (bool, error) {
	m := p.collection.Maps[table]
	err := m.Lookup(key, value)
	if err == nil {
		err = m.Delete(key)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take from %s: %w", table, err)
	}
	return true, p.holdRows(table, -1)
}
