// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/load"
)

// Depart keeps here what is known of a listener that has closed, to make room for
// others. What still arrives for it is added.
func (c *Counters) Depart(socket uint64) error {
	if err := c.departAccepting(socket, true); err != nil {
		return err
	}
	if c.ByOwner {
		if err := c.Collection.Maps["wanted"].Delete(socket); err != nil &&
			!errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget the verdict on a listener: %w", err)
		}
	}
	return c.departArrivals(socket)
}

// departedAtMost is how many listeners' sums are kept here one by one.
const departedAtMost = 1 << 17

func (c *Counters) departArrivals(socket uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Table.forget(socket)
	var total bpf.SynspyArrivals
	if ok, err := c.TakeRow("arrived", socket, &total); err != nil || !ok {
		return err
	}
	if _, known := c.Departed[socket]; !known && len(c.Departed) >= departedAtMost {
		socket = 0
		c.DepartedSyns += total.Syn
	}
	sum := c.Departed[socket]
	addArrivals(&sum, &total)
	c.Departed[socket] = sum
	return nil
}

// Take returns a row of Counts as it is by now, and takes it out of the kernel side's
// table.
func (c *Counters) Take(row Count) (Count, error) {
	key := bpf.SynspyCountKey{Id: row.Listener.Socket, Outcome: uint32(row.Outcome)}
	var value bpf.SynspyCount
	c.mu.Lock()
	defer c.mu.Unlock()
	inTable, err := c.TakeRow("counts", key, &value)
	if err != nil {
		return row, err
	}
	at, err := c.takePlace(key)
	if inTable || at.Key == key {
		addCount(&value, &at)
		row.Delivered, row.Suppressed, row.Lost, row.Again = value.Delivered, value.Suppressed, value.Lost, value.Again
	}
	return row, err
}

// Crowded reports whether a table of listeners is so full that rows in which nothing changes should make room.
func (c *Counters) Crowded(table string) (bool, error) {
	rows, err := c.Rows(table)
	return rows > uint64(load.Room(c.Collection.Maps[table].MaxEntries())), err
}

// MakeRoom keeps here what is known of listeners to which nothing happened since it was last called, where the
// tables are crowded: theirs are sums, which begin anew.
func (c *Counters) MakeRoom() error {
	rest := []struct {
		table  string
		at     *map[uint64]uint64 // what each had at the last call
		read   func() (map[uint64]uint64, error)
		depart func(uint64) error
	}{
		{"arrived", &c.resting.arrived, c.arrivedNow, c.departArrivals},
		{"acceptings", &c.resting.accepted, c.acceptedNow,
			func(socket uint64) error { return c.departAccepting(socket, false) }},
	}
	for _, r := range rest {
		if r.table == "acceptings" && !c.Accepts {
			continue
		}
		crowded, err := c.Crowded(r.table)
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

func (c *Counters) arrivedNow() (map[uint64]uint64, error) {
	now := make(map[uint64]uint64)
	err := load.EachRow(c.Objects, "arrived",
		func(socket uint64, raw *bpf.SynspyArrivals) { now[socket] = raw.Syn + raw.Ack })
	return now, err
}

func (c *Counters) acceptedNow() (map[uint64]uint64, error) {
	now := make(map[uint64]uint64)
	err := load.EachRow(c.Objects, "acceptings", func(socket uint64, raw *bpf.SynspyAccepting) {
		now[socket] = raw.Accepts + raw.AnsweredAgain + raw.AskedAgain
	})
	return now, err
}
