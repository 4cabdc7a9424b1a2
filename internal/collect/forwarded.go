// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/session"
)

// maxForwarders bounds the network namespaces whose counters of forwarded packets are read.
const maxForwarders = 256

// forwardWatch reads at both ends of the window how many packets the namespaces watched passed on:
// the kernel received these, and they come to no listener. Where one namespace is asked about, so
// it does for those that its packets may come through.
type forwardWatch struct {
	snmp   *kernel.SNMPReader
	before map[uint64]passed // by namespace
	spaces []kernel.NetNS
	only   uint64
	own    uint64
	gaps   []string
}

// passed is how many packets were passed on: as routes say, and by IPVS to its servers.
type passed struct{ forwarded, ipvs uint64 }

// openForwarded reads the counters of one namespace, and of synspy's own and the first process's,
// or (0) of all there are.
func openForwarded(only uint64) *forwardWatch {
	w := &forwardWatch{snmp: kernel.NewSNMPReader("IpForwDatagrams", "Ip6OutForwDatagrams",
		kernel.IPVSPackets), before: make(map[uint64]passed), only: only}
	w.own, _ = kernel.Inode("/proc/thread-self/ns/net")
	first, _ := kernel.Inode(processNetNS(1))
	known, hidden, err := kernel.NetNamespaces("/proc")
	if err != nil {
		w.gaps = append(w.gaps, err.Error())
	}
	if hidden > 0 && only == 0 {
		w.gaps = append(w.gaps,
			fmt.Sprintf("what %d network namespaces forward could not be read", hidden))
	}
	for _, ns := range known {
		if only != 0 && ns.Inode != only && ns.Inode != w.own && ns.Inode != first {
			continue
		}
		if len(w.spaces) == maxForwarders {
			w.gaps = append(w.gaps,
				"what further network namespaces forward was not read")
			break
		}
		if n, ok := w.read(ns); ok {
			w.before[ns.Inode] = n
			w.spaces = append(w.spaces, ns)
		}
	}
	return w
}

func (w *forwardWatch) read(ns kernel.NetNS) (passed, bool) {
	counters, _, err := session.ReadNetNS(w.snmp, ns)
	if err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n") // the rest says of other ways into it
		w.gaps = append(w.gaps,
			fmt.Sprintf("what network namespace %d forwards could not be read: %s",
				ns.Inode, why))
		return passed{}, false
	}
	return passed{counters["IpForwDatagrams"] + counters["Ip6OutForwDatagrams"],
		counters[kernel.IPVSPackets]}, true
}

// forwarded adds to the evidence what was passed on in the window.
func (c *collector) forwarded() {
	w, e := c.forwards, &c.Evidence
	for _, ns := range w.spaces {
		now, ok := w.read(ns)
		was := w.before[ns.Inode]
		f := evidence.Forwarded{NetNS: ns.Inode, Own: ns.Inode == w.own,
			Before: w.only != 0 && ns.Inode != w.only,
			Packets: now.forwarded - min(was.forwarded,
				now.forwarded), IPVS: now.ipvs - min(was.ipvs, now.ipvs)}
		if !ok || f.Packets+f.IPVS == 0 {
			continue
		}
		if !f.Own {
			f.Enter, _ = waysInto(&ns)
		}
		e.Forwarded = append(e.Forwarded, f)
	}
	for _, why := range w.gaps[:min(len(w.gaps), toldDiversions)] {
		e.Missing = append(e.Missing, evidence.Gap{Need: evidence.NeedForwarded, Why: why})
	}
}
