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

// Depart keeps here what reached a listener that has closed, to make room for
// others. What still arrives for it is added.
func (p *Probe) Depart(socket uint64) error {
	if err := p.departAccepting(socket); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var total bpf.SynspyArrivals
	if ok, err := p.take("arrived", socket, &total); err != nil || !ok {
		return err
	}
	before := p.departed[socket]
	p.departed[socket] = Arrivals{socket, before.Syn + total.Syn, before.Ack + total.Ack}
	return nil
}

// Take returns a row of Counts as it is by now, and takes it out of the kernel side's
// table.
func (p *Probe) Take(c Count) (Count, error) {
	key := bpf.SynspyCountKey{Id: c.Listener.Socket, Outcome: uint32(c.Outcome)}
	var value bpf.SynspyCount
	ok, err := p.take("counts", key, &value)
	if ok {
		c.Delivered, c.Suppressed, c.Lost, c.Again = value.Delivered, value.Suppressed, value.Lost, value.Again
	}
	return c, err
}

// take reads a value and deletes it; false if there is none.
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
	return true, nil
}
