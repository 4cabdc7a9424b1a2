package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
)

// retireAt is how many namespaces may come before those that are gone are looked for:
// half of what the kernel side's table has room for.
const retireAt = 128

// Retire makes room in the kernel side's tables. What was counted in namespaces that
// are gone is kept here, if it was anything; it costs next to nothing while few
// namespaces come and go.
func (p *Probe) Retire() error {
	var tracked uint64
	if err := p.collection.Variables["tracked"].Get(&tracked); err != nil {
		return fmt.Errorf("read tracked: %w", err)
	}
	if tracked-p.retiredAt < retireAt {
		return nil
	}
	p.retiredAt = tracked
	p.mu.Lock()
	defer p.mu.Unlock()
	books, err := p.readBooks()
	if err != nil {
		return err
	}
	run := runner{program: p.collection.Programs["snapshot"]} // any CPU knows
	for i := range books {
		b := &books[i]
		answer, err := run.ask(bpf.SynspyRequestREQUEST_ALIVE, b.id, b.namespace)
		if err == nil && answer == bpf.SynspyAnswerANSWER_GONE {
			err = p.retire(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// retire takes a namespace's book out of the kernel side's tables.
func (p *Probe) retire(b *book) error {
	b.gone = true
	if err := p.countGone(b); err != nil {
		return err
	}
	if b.outcomes != (book{}).outcomes || b.unattributed != (vector{}) {
		p.retired = append(p.retired, *b)
	}
	delete(p.books, b.id)
	delete(p.idle, b.id)
	errs := []error{p.collection.Maps["tallies"].Delete(b.id), p.collection.Maps["openings"].Delete(b.id)}
	for cpu := range p.cpus {
		errs = append(errs, p.collection.Maps["bases"].Delete(bpf.SynspyBaseKey{Id: b.id, Cpu: uint64(cpu)}))
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
