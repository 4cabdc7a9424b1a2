// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"github.com/synspy/synspy/internal/event"
	"golang.org/x/sys/unix"
	"net/netip"
	"slices"
)

const MaxPortRanges = 32

// PortRange is a range of ports, both ends included.
type PortRange struct{ Low, High uint16 }

// Filter is what the kernel side keeps; empty fields keep everything.
type Filter struct {
	NetNS   uint64
	Ports   []PortRange
	Servers []netip.Prefix
	Clients []netip.Prefix
	Causes  []event.Cause
	Stages  []event.Stage
	ByOwner bool // only listeners allowed by Want
	// Mapped is where rules send what is for the ports and addresses asked about.
	Mapped []Mapped
}

// Mapped is where a rule sends packets to.
type Mapped struct {
	NetNS uint64     // 0 for any
	Addr  netip.Addr // not valid for any
	Port  uint16
}

// Narrows reports whether it asks for some listeners only.
func (f *Filter) Narrows() bool {
	return f.NetNS != 0 || len(f.Ports) > 0 || len(f.Servers) > 0 || f.ByOwner
}

// Keeps reports whether the cause and stage filters let the outcome through. What
// is no drop has no cause and passes.
func (f Filter) Keeps(o event.Outcome) bool {
	branch := o.Branch()
	if branch.Kind != event.KindDrop {
		return len(f.Stages) == 0 || slices.Contains(f.Stages, branch.Stage)
	}
	return (len(f.Causes) == 0 || slices.Contains(f.Causes, branch.Cause)) &&
		(len(f.Stages) == 0 || slices.Contains(f.Stages, branch.Stage))
}

// Config is what a run of the probe is asked for.
type Config struct {
	Filter   Filter
	Cookies  bool   // records for SYNs that a cookie answered
	Rate     uint32 // records per second, listener and outcome; 0: all
	RingSize uint32 // bytes, a power of two; 0: by the machine's memory
	Capture  bool   // records carry their packets' first bytes
	Accepts  bool   // watch who accepts what: see Accepting and LastAccepts
}

const leastRing = 1 << 20 // unless asked otherwise

// ErrRingSize says that a ring buffer cannot have that size.
var ErrRingSize = errors.New("ring size must be a power of two from 4096 to 1073741824")

// CheckRingSize reports whether a ring buffer can have so many bytes.
func CheckRingSize(bytes uint32) error {
	if bytes < SmallestRing || bytes > largestRing || bytes&(bytes-1) != 0 {
		return fmt.Errorf("%w: %d", ErrRingSize, bytes)
	}
	return nil
}

// DefaultRingSize is the ring buffer's size in bytes unless asked otherwise: what this machine can
// afford.
func DefaultRingSize() uint32 { return ringFor(machineMemory()) }

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

// machineMemory is how many bytes this machine has, 0 where it does not say.
func machineMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // narrower on 32 bits
}
