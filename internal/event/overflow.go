// SPDX-License-Identifier: Apache-2.0

package event

import "fmt"

// Overflow is what synspy's bounded tables had no room for: counted, but not told whose it was.
// What is zero is absent. Nothing is proven of what may be among it.
type Overflow struct {
	// Namespaces is how many packets and counter movements were of network namespaces that no
	// table had room for. The ledger has a row of others with what is known of them.
	Namespaces uint64 `json:"namespaces,omitempty"`
	// Drops and Syns are packets of listeners without a row of their own; they are in the sums.
	// Accepts are connections that such listeners were given.
	Drops   uint64 `json:"drops,omitempty"`
	Syns    uint64 `json:"syns,omitempty"`
	Accepts uint64 `json:"accepts,omitempty"`
	// Unnamed are listeners, each time one was met, beyond as many as are remembered.
	Unnamed uint64 `json:"unnamed,omitempty"`
	// Changes are openings and closings of listeners that the ring buffer had no room for.
	Changes uint64 `json:"changes,omitempty"`
	// Handshakes were forgotten for newer ones: each may be counted a second time among those
	// that lost a packet.
	Handshakes uint64 `json:"handshakes,omitempty"`
	// Samples are those of threads, on a CPU and off it, that were not kept, or not with their
	// stack.
	Samples uint64 `json:"samples,omitempty"`
	// Uncounted are packets that are in the ledger alone.
	Uncounted uint64 `json:"uncounted,omitempty"`
}

// Hides reports whether a packet that died may be among it without being told of.
func (o *Overflow) Hides() bool {
	return o != nil && o.Namespaces+o.Drops+o.Syns+o.Unnamed+o.Changes+o.Uncounted > 0
}

// Sentences say it, one table each.
func (o *Overflow) Sentences() []string {
	if o == nil {
		return nil
	}
	var said []string
	for _, of := range []struct {
		count uint64
		what  string
	}{
		{o.Namespaces,
			"packets or counter movements were of network namespaces that the tables had no room for: " +
				"the ledger has them as others, without causes, if their namespaces still are there"},
		{o.Drops,
			"dropped packets were of listeners that the table of counts had no room for: they are in the sums alone"},
		{o.Syns, "SYNs were of listeners that the table of arrivals had no room for: they are counted as other listeners'"},
		{o.Accepts,
			"connections were of listeners that the table of accepts had no room for: they are counted as other listeners'"},
		{o.Unnamed,
			"times a listener was met beyond as many as are remembered: it is not named"},
		{o.Changes,
			"openings and closings of listeners were lost to a full ring buffer: owners may be missing; try a larger --ring-size"},
		{o.Handshakes,
			"handshakes that lost a packet were forgotten for newer ones: some may be counted twice"},
		{o.Samples, "samples of threads had no room, or no room for their stack"},
		{o.Uncounted, "dropped packets had no row of counts: they are in the ledger alone"},
	} {
		if of.count > 0 {
			said = append(said, fmt.Sprintf("%d %s", of.count, of.what))
		}
	}
	return said
}
