package probe

import "net/netip"

// Undivided tells which of these listeners share their place with another by SO_REUSEPORT, where it is not known which of
// them a SYN or a connection came to: tracepoints are not given the socket, and all is counted to some member.
func (p *Probe) Undivided(list []Listener) map[uint64]bool {
	if p.plan.Backend != Tracepoint {
		return nil
	}
	return sharing(list)
}

// sharing lists the listeners that are not the only one at their place.
func sharing(list []Listener) map[uint64]bool {
	type place struct {
		netns uint64
		addr  netip.Addr
		port  uint16
	}
	first := make(map[place]uint64, len(list))
	shared := make(map[uint64]bool)
	for i := range list {
		l := &list[i]
		at := place{l.NetNS, l.Addr, l.Port}
		other, taken := first[at]
		switch {
		case !taken:
			first[at] = l.Socket
		case other != l.Socket: // one socket has an entry for each of its holders
			shared[other], shared[l.Socket] = true, true
		}
	}
	return shared
}
