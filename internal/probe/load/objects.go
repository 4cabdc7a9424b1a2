// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"github.com/cilium/ebpf"
	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
	"github.com/synspy/synspy/internal/probe/facts"
	"github.com/synspy/synspy/internal/probe/message"
	"sync"
	"unsafe"
)

// Objects are the programs and maps of one run, in the kernel.
type Objects struct {
	Collection *ebpf.Collection
	Online     []int // CPUs
	Possible   int   // CPUs: values of a per-CPU map
	Sizes      facts.Sizes
	mu         sync.Mutex
	Held       map[string]int64 // rows that Go made in each table, less those that it took out
}

// HoldRows tells the kernel side how many rows of a table Go made, or, if negative, took out.
func (o *Objects) HoldRows(table string, more int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Held[table] += more
	if err := o.Collection.Variables[table+"_held"].Set(uint64(o.Held[table])); err != nil {
		return fmt.Errorf("count the rows of %s: %w", table, err)
	}
	return nil
}

// Rows is how many a table has, of those that make room for others.
func (o *Objects) Rows(table string) (uint64, error) {
	var made uint64
	if err := o.Collection.Variables[table+"_made"].Get(&made); err != nil {
		return 0, fmt.Errorf("count the rows of %s: %w", table, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return made + uint64(o.Held[table]), nil
}

// MakeOtherRows makes the rows of what the tables have no room for.
func (o *Objects) MakeOtherRows(accepts bool) error {
	put := func(table string, key, value any) error {
		if err := o.Collection.Maps[table].Put(key, value); err != nil {
			return fmt.Errorf("make the row of others in %s: %w", table, err)
		}
		return nil
	}
	var errs []error
	for outcome := event.OutcomeNone + 1; outcome < event.NumOutcomes; outcome++ {
		other := bpf.SynspyCountKey{Outcome: uint32(outcome)}
		errs = append(errs, put("counts", other, bpf.SynspyCount{}),
			put("filtered", other, uint64(0)))
	}
	for cpu := range o.Possible {
		errs = append(errs, put("tallies", bpf.SynspyNamespaceCpu{Cpu: uint64(cpu)},
			bpf.SynspyTally{}))
	}
	errs = append(errs, put("arrived", uint64(0), bpf.SynspyArrivals{}))
	if accepts {
		errs = append(errs, put("acceptings", uint64(0), bpf.SynspyAccepting{}))
	}
	return errors.Join(errs...)
}

// EachRow hands over the rows of a table of listeners.
func EachRow[K, V any](o *Objects, table string, f func(K, *V)) error {
	var (
		key   K
		value V
	)
	entries := o.Collection.Maps[table].Iterate()
	for entries.Next(&key, &value) {
		f(key, &value)
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read %s: %w", table, err)
	}
	return nil
}

// TakeRow reads a value and deletes it; false if there is none.
func (o *Objects) TakeRow(table string, key, value any) (bool, error) {
	m := o.Collection.Maps[table]
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
	return true, o.HoldRows(table, -1)
}

// EachCPU hands f the state of each. They are large, and looked at as they come from the kernel.
func (o *Objects) EachCPU(f func(*bpf.SynspyCpuState)) error {
	raw, err := o.Collection.Maps["cpu_states"].LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	const size = (int(unsafe.Sizeof(bpf.SynspyCpuState{})) + 7) &^ 7 // bpf_percpu_array_copy: round_up(value_size, 8)
	for len(raw) >= size {
		f((*bpf.SynspyCpuState)(unsafe.Pointer(unsafe.SliceData(raw))))
		raw = raw[size:]
	}
	return nil
}

// Namespace is a network namespace as the kernel side names it.
type Namespace struct {
	ID    uint64 // its key: net_id() of bpf/compat.h
	Net   uint64 // address of its struct net
	Inode uint32
}

// ReadListener reads a listener as it is now: its queues, their limits, its address. It
// costs one run of a small program, some microseconds. ok is false once the
// socket listens no more. Not for several goroutines at once.
func (o *Objects) ReadListener(l *message.Listener) (now message.Listener, ok bool, err error) {
	// An id is the address with the cookie in its upper bits: see socket_id() in
	// bpf/packet.h.
	address := l.Socket ^ l.Cookie<<48
	answer, err := o.AnyCPU().Ask(bpf.SynspyRequestREQUEST_LISTENER, address,
		Namespace{Net: l.Socket})
	if err != nil || answer == bpf.SynspyAnswerANSWER_GONE {
		return message.Listener{}, false, err
	}
	if answer != bpf.SynspyAnswerANSWER_DONE {
		return message.Listener{}, false, fmt.Errorf("read listener %d: refused", l.Inode)
	}
	var raw bpf.SynspyListener
	if err := o.Collection.Maps["listeners_read"].Lookup(uint32(0), &raw); err != nil {
		return message.Listener{}, false, fmt.Errorf("read listener %d: %w", l.Inode, err)
	}
	return message.ListenerOf(&raw), true, nil
}

// batch is how many entries of a map are read at once.
const batch = 1024

// Everything hands f each entry of a hash map, once, whatever comes and goes meanwhile: 5.6.
func Everything[K, V any](m *ebpf.Map, f func(K, *V) error) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, batch), make([]V, batch)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return fmt.Errorf("read map: %w", err)
		}
		for i := range n {
			if err := f(keys[i], &values[i]); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}
