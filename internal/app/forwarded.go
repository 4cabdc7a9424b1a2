package app

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/internal/diagnose"
	"github.com/synspy/synspy/internal/kernel"
)

// maxForwarders bounds the network namespaces whose counters of forwarded packets are read.
const maxForwarders = 256

// forwardWatch reads at both ends of the window how many packets the namespaces watched passed on: the kernel received these,
// and they come to no listener.
type forwardWatch struct {
	snmp   *kernel.SNMPReader
	before map[uint64]uint64 // by namespace
	spaces []kernel.NetNS
	own    uint64
	gaps   []string
}

// openForwarded reads the counters of one namespace, or (0) of all there are.
func openForwarded(only uint64) *forwardWatch {
	w := &forwardWatch{snmp: kernel.NewSNMPReader("IpForwDatagrams", "Ip6OutForwDatagrams"), before: make(map[uint64]uint64)}
	w.own, _ = kernel.Inode("/proc/thread-self/ns/net")
	known, hidden, err := kernel.NetNamespaces("/proc")
	if err != nil {
		w.gaps = append(w.gaps, err.Error())
	}
	if hidden > 0 && only == 0 {
		w.gaps = append(w.gaps, fmt.Sprintf("what %d network namespaces forward could not be read", hidden))
	}
	for _, ns := range known {
		if only != 0 && ns.Inode != only {
			continue
		}
		if len(w.spaces) == maxForwarders {
			w.gaps = append(w.gaps, "what further network namespaces forward was not read")
			break
		}
		if n, ok := w.read(ns); ok {
			w.before[ns.Inode] = n
			w.spaces = append(w.spaces, ns)
		}
	}
	return w
}

func (w *forwardWatch) read(ns kernel.NetNS) (uint64, bool) {
	counters, _, err := readNetNS(w.snmp, ns)
	if err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n") // the rest says of other ways into it
		w.gaps = append(w.gaps, fmt.Sprintf("what network namespace %d forwards could not be read: %s", ns.Inode, why))
		return 0, false
	}
	return counters["IpForwDatagrams"] + counters["Ip6OutForwDatagrams"], true
}

// forwarded adds to the evidence what was passed on in the window.
func (c *collector) forwarded() {
	w, e := c.forwards, &c.evidence
	for _, ns := range w.spaces {
		if now, ok := w.read(ns); ok && now > w.before[ns.Inode] {
			f := diagnose.Forwarded{NetNS: ns.Inode, Own: ns.Inode == w.own, Packets: now - w.before[ns.Inode]}
			if !f.Own {
				f.Enter, _ = waysInto(&ns)
			}
			e.Forwarded = append(e.Forwarded, f)
		}
	}
	for _, why := range w.gaps[:min(len(w.gaps), toldDiversions)] {
		e.Missing = append(e.Missing, diagnose.Gap{Need: diagnose.NeedForwarded, Why: why})
	}
}
