// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Tables of recent things: the oldest give way.
const (
	maxAcceptors = 16384 // processes and listeners that they accept from
	maxListening = 16384 // ports that listen
	acceptPlaces = 256   // listeners whose accepts are counted without a search
	acceptNotes  = 4096  // threads in accept(), with kprobes: others are noted elsewhere
	maxInAccept  = 4096  // threads that slept in accept() at the start; the first accept of others is not seen
)

// keptPart of the namespaces' tables is for those that a filter names.
const keptPart = 4

// room is how many of a table's rows anybody may take.
func room(entries uint32) uint32 { return entries - entries/keptPart }

// sizes are how many rows the tables have. What is over them has a row of its own.
type sizes struct {
	late     bool   // rows are made on first use
	openings uint32 // namespaces
	bases    uint32 // namespaces and CPUs with a past
	tallies  uint32 // namespaces and CPUs in which something moved
	withheld uint32 // namespaces and outcomes that filters keep out
	counts   uint32 // listeners and outcomes
	arrived  uint32 // listeners
	accepts  uint32 // listeners from which connections are accepted
	wanted   uint32 // listeners that owner filters were asked about
}

// sizesFor chooses them. Since 6.1 memory for rows comes from the BPF allocator ("bpf: Remove
// tracing program restriction on map types", 96da3f7d489d), so that large tables cost nothing until
// they are needed: all of the following are 64 MiB when 10,000 namespaces and 100,000 listeners are
// busy, on 128 CPUs. Before, a tracing program must find its rows already made; with kprobes and
// raw tracepoints the kernel warns, or, with PREEMPT_RT, refuses.
func sizesFor(facts *Facts, cpus int) sizes {
	if facts.fewRows != nil {
		return *facts.fewRows
	}
	if facts.LateRows {
		return sizes{late: true, openings: 1 << 16, bases: 1 << 16, tallies: 1 << 15, withheld: 1 << 14, counts: 1 << 16,
			arrived: 1 << 17, accepts: 1 << 14, wanted: 1 << 17}
	}
	byCPU := func(most int) uint32 { return uint32(min(max(512*cpus, 1<<12), most)) }
	return sizes{openings: 1 << 14, bases: byCPU(1 << 16), tallies: byCPU(1 << 14), withheld: 1 << 12, counts: 1 << 14,
		arrived: 1 << 15, accepts: 1 << 14, wanted: 1 << 14}
}

// size sets the sizes of the maps.
func size(spec *ebpf.CollectionSpec, facts *Facts, config Config) error {
	if config.RingSize == 0 {
		config.RingSize = DefaultRingSize()
	}
	if err := CheckRingSize(config.RingSize); err != nil {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	spec.Maps["ring"].MaxEntries = config.RingSize
	spec.Maps["offsets"].MaxEntries = uint32(cpus)
	s := sizesFor(facts, cpus)
	rows := map[string]uint32{"openings": s.openings, "bases": s.bases, "tallies": s.tallies, "withheld": s.withheld,
		"counts": s.counts, "arrived": s.arrived, "wanted": 1}
	if config.Filter.ByOwner {
		rows["wanted"] = s.wanted
	}
	if config.Accepts {
		rows["acceptings"] = s.accepts
	}
	for name, entries := range rows {
		spec.Maps[name].MaxEntries = entries
		if s.late {
			spec.Maps[name].Flags |= unix.BPF_F_NO_PREALLOC
		}
	}
	if config.Accepts {
		for name, entries := range map[string]uint32{"accept_places": acceptPlaces,
			"accept_owners": acceptPlaces, "accept_notes": acceptNotes, "sleepers": maxInAccept, "acceptors": maxAcceptors, "accept_calls": maxAcceptors,
			"listening": maxListening, "children": maxAcceptors} {
			spec.Maps[name].MaxEntries = entries
		}
	}
	return nil
}

// DefaultRingSize is the ring buffer's size in bytes unless asked otherwise: what this machine can
// afford.
func DefaultRingSize() uint32 { return ringFor(memory()) }

// ringFor is the ring buffer's size on a machine with so many bytes of memory: a 2048th of it,
// within limits. With 4 MiB a reader that shares its CPU with a flood of 300,000 records a second
// may be away for 40 ms.
func ringFor(memory uint64) uint32 {
	ring := uint32(leastRing)
	for ring < mostRing && uint64(ring)*2*ringPart <= memory {
		ring *= 2
	}
	return ring
}

// memory is how many bytes this machine has, 0 where it does not say.
func memory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // narrower on 32 bits
}
