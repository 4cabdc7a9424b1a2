// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"

	"github.com/cilium/ebpf"

	"github.com/synspy/synspy/internal/bpf"
	"github.com/synspy/synspy/internal/probe/load"
)

// ArrivedRows are rows of the table of arrivals as they were read. The kernel side writes there only
// where two listeners share a place in a CPU's state, and tells by its moves: a row is a system call, and
// the whole table takes as long as it has room.
type ArrivedRows struct {
	rows  map[uint64]arrivedRow
	whole bool   // all of the table was read
	at    uint64 // how many moves had ended then
}

type arrivedRow struct {
	bpf.SynspyArrivals
	at uint64 // likewise
}

// read reads the rows of these listeners, or all of them, that something may have gone to since they
// were read. ended is how many moves had ended before; those under way are found by the next reading.
func (r *ArrivedRows) read(table *ebpf.Map, sockets []uint64, ended uint64) error {
	switch {
	case r.whole && r.at == ended:
		return nil
	case len(sockets) == 0:
		r.rows = make(map[uint64]arrivedRow)
		err := load.Everything(table, func(socket uint64, total *bpf.SynspyArrivals) error {
			r.rows[socket] = arrivedRow{*total, ended}
			return nil
		})
		r.whole, r.at = err == nil, ended
		return err
	}
	r.whole = false
	if r.rows == nil {
		r.rows = make(map[uint64]arrivedRow)
	}
	for _, socket := range sockets {
		if row, known := r.rows[socket]; known && row.at == ended {
			continue
		}
		row := arrivedRow{at: ended}
		err := table.Lookup(socket, &row.SynspyArrivals)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		r.rows[socket] = row
	}
	return nil
}

// each hands over these rows, or all.
func (r *ArrivedRows) each(sockets []uint64, f func(uint64, *bpf.SynspyArrivals)) {
	for _, socket := range sockets {
		row := r.rows[socket]
		f(socket, &row.SynspyArrivals)
	}
	if len(sockets) == 0 {
		for socket, row := range r.rows {
			f(socket, &row.SynspyArrivals)
		}
	}
}

// forget ends what is known of a row that is taken out of the table.
func (r *ArrivedRows) forget(socket uint64) { delete(r.rows, socket) }
