// SPDX-License-Identifier: Apache-2.0

package load

import (
	"github.com/cilium/ebpf"
	"github.com/synspy/synspy/internal/probe/facts"
	"golang.org/x/sys/unix"
)

// Tables of recent things: the oldest give way.
const (
	maxAcceptors = 16384 // processes and listeners that they accept from
	maxListening = 16384 // ports that listen
	acceptPlaces = 256   // listeners whose accepts are counted without a search
	AcceptNotes  = 4096  // threads in accept(), with kprobes: others are noted elsewhere
	maxInAccept  = 4096  // threads that slept in accept() at the start; the first accept of others is not seen
)

// keptPart of the namespaces' tables is for those that a filter names.
const keptPart = 4

// Room is how many of a table's rows anybody may take.
func Room(entries uint32) uint32 { return entries - entries/keptPart }

// size sets the sizes of the maps.
func size(spec *ebpf.CollectionSpec, here *facts.Facts, config Config) error {
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
	s := facts.SizesFor(here, cpus)
	rows := map[string]uint32{"openings": s.Openings, "bases": s.Bases, "tallies": s.Tallies,
		"filtered": s.Withheld,
		"counts":   s.Counts, "arrived": s.Arrived, "wanted": 1}
	if config.Filter.ByOwner {
		rows["wanted"] = s.Wanted
	}
	if config.Accepts {
		rows["acceptings"] = s.Accepts
	}
	for name, entries := range rows {
		spec.Maps[name].MaxEntries = entries
		if s.Late {
			spec.Maps[name].Flags |= unix.BPF_F_NO_PREALLOC
		}
	}
	if config.Accepts {
		for name, entries := range map[string]uint32{"accept_places": acceptPlaces,
			"accept_owners": acceptPlaces, "accept_notes": AcceptNotes, "sleepers": maxInAccept, "acceptors": maxAcceptors, "accept_calls": maxAcceptors,
			"listening": maxListening, "children": maxAcceptors} {
			spec.Maps[name].MaxEntries = entries
		}
	}
	return nil
}
