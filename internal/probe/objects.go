// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/event"
)

// objects are the programs and maps of one run, in the kernel.
type objects struct {
	collection *ebpf.Collection
	online     []int // CPUs
	possible   int   // CPUs: values of a per-CPU map
	sizes      sizes
	mu         sync.Mutex
	held       map[string]int64 // rows that Go made in each table, less those that it took out
}

// holdRows tells the kernel side how many rows of a table Go made, or, if negative, took out.
func (o *objects) holdRows(table string, more int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[table] += more
	if err := o.collection.Variables[table+"_held"].Set(uint64(o.held[table])); err != nil {
		return fmt.Errorf("count the rows of %s: %w", table, err)
	}
	return nil
}

// rows is how many a table has, of those that make room for others.
func (o *objects) rows(table string) (uint64, error) {
	var made uint64
	if err := o.collection.Variables[table+"_made"].Get(&made); err != nil {
		return 0, fmt.Errorf("count the rows of %s: %w", table, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return made + uint64(o.held[table]), nil
}

// makeOtherRows makes the rows of what the tables have no room for.
func (o *objects) makeOtherRows(accepts bool) error {
	put := func(table string, key, value any) error {
		if err := o.collection.Maps[table].Put(key, value); err != nil {
			return fmt.Errorf("make the row of others in %s: %w", table, err)
		}
		return nil
	}
	var errs []error
	for outcome := event.OutcomeNone + 1; outcome < event.NumOutcomes; outcome++ {
		other := bpf.SynspyCountKey{Outcome: uint32(outcome)}
		errs = append(errs, put("counts", other, bpf.SynspyCount{}),
			put("withheld", other, uint64(0)))
	}
	for cpu := range o.possible {
		errs = append(errs, put("tallies", bpf.SynspyPlaceKey{Cpu: uint64(cpu)},
			bpf.SynspyTally{}))
	}
	errs = append(errs, put("arrived", uint64(0), bpf.SynspyArrivals{}))
	if accepts {
		errs = append(errs, put("acceptings", uint64(0), bpf.SynspyAccepting{}))
	}
	return errors.Join(errs...)
}

// eachRow hands over the rows of a table of listeners.
func eachRow[K, V any](o *objects, table string, f func(K, *V)) error {
	var (
		key   K
		value V
	)
	entries := o.collection.Maps[table].Iterate()
	for entries.Next(&key, &value) {
		f(key, &value)
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read %s: %w", table, err)
	}
	return nil
}

// take reads a value and deletes it; false if there is none.
func (o *objects) take(table string, key, value any) (bool, error) {
	m := o.collection.Maps[table]
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
	return true, o.holdRows(table, -1)
}

// eachCPU hands f the state of each. They are large, and looked at as they come from the kernel.
func (o *objects) eachCPU(f func(*bpf.SynspyCpuState)) error {
	raw, err := o.collection.Maps["cpu_states"].LookupBytes(uint32(0))
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
