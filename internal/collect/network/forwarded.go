// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"strings"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/session"
)

// Bounds of the network namespaces whose counters of forwarded packets are read, and of the reasons
// why others are not.
const (
	maxForwarders  = 256
	maxForwardGaps = 16
)

// Forwards reads at both ends of the window how many packets the namespaces watched passed on:
// the kernel received these, and they come to no listener. Where one namespace is asked about, so
// it does for those that its packets may come through.
type Forwards struct {
	snmp   *kernel.SNMPReader
	before map[uint64]passed // by namespace
	spaces []kernel.NetNS
	only   uint64
	own    uint64
	gaps   []string
}

// passed is how many packets were passed on: as routes say, and by IPVS to its servers.
type passed struct{ forwarded, ipvs uint64 }

// OpenForwards reads the counters of one namespace, and of synspy's own and the first process's,
// or (0) of all there are.
func OpenForwards(only uint64) *Forwards {
	w := &Forwards{snmp: kernel.NewSNMPReader("IpForwDatagrams", "Ip6OutForwDatagrams",
		kernel.IPVSPackets), before: make(map[uint64]passed), only: only}
	w.own, _ = kernel.OwnNetNS()
	first, _ := kernel.Inode(kernel.ProcessNetNS(1))
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

func (w *Forwards) read(ns kernel.NetNS) (passed, bool) {
	counters, _, err := session.ReadNetNS(w.snmp, ns)
	if err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n") // the rest is about other ways into it
		w.gaps = append(w.gaps,
			fmt.Sprintf("what network namespace %d forwards could not be read: %s",
				ns.Inode, why))
		return passed{}, false
	}
	return passed{counters["IpForwDatagrams"] + counters["Ip6OutForwDatagrams"],
		counters[kernel.IPVSPackets]}, true
}

// Evidence returns what was forwarded since, and what could not be read.
func (w *Forwards) Evidence() (list []evidence.Forwarded, missing []evidence.Gap) {
	for _, ns := range w.spaces {
		now, ok := w.read(ns)
		was := w.before[ns.Inode]
		f := evidence.Forwarded{NetNS: ns.Inode, Own: ns.Inode == w.own,
			Before:  w.only != 0 && ns.Inode != w.only,
			Packets: now.forwarded - min(was.forwarded, now.forwarded),
			IPVS:    now.ipvs - min(was.ipvs, now.ipvs)}
		if !ok || f.Packets+f.IPVS == 0 {
			continue
		}
		if !f.Own {
			f.Enter, _ = waysInto(&ns)
		}
		list = append(list, f)
	}
	for _, why := range w.gaps[:min(len(w.gaps), maxForwardGaps)] {
		missing = append(missing, evidence.Gap{Need: evidence.NeedForwarded, Why: why})
	}
	return list, missing
}
