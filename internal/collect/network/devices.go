// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"slices"

	"github.com/synspy/synspy/internal/diagnose/evidence"
	"github.com/synspy/synspy/internal/kernel"
	"github.com/synspy/synspy/internal/probe/device"
	"github.com/synspy/synspy/internal/render"
)

// maxDeviceNamespaces bounds the network namespaces whose devices are read.
const maxDeviceNamespaces = 64

// Devices finds the XDP and tc programs that are there now: they may explain why no SYN arrived, or
// why some died, and what they take of some clients is no part of a health that others prove. It
// lists the devices with programs that packets for these namespaces may meet, the likelier ones
// first; how many devices there are in all, nil where none could be read; and why others could not.
func Devices(concerned []uint64) (list []evidence.Device, read *uint64, missing []error) {
	r := deviceReader{rules: kernel.HasNFTables(),
		missing: func(why error) { missing = append(missing, why) }}
	r.readAll(concerned)
	list, read = r.list()
	return list, read, missing
}

// deviceReader reads the devices of network namespaces, and of those that packets for them come
// through.
type deviceReader struct {
	missing func(why error)
	rules   bool // nftables is there: asking would make the kernel load it
	own     uint64
	roots   []uint64 // synspy's own, and that of the first process: where others get their packets from
	known   []kernel.NetNS
	read    []*deviceNamespace // in the order in which they were
	ends    map[deviceAt]bool  // the other ends of devices of the namespaces before
}

// deviceNamespace is a network namespace whose devices were read.
type deviceNamespace struct {
	inode   uint64
	enter   evidence.Enter
	through bool // packets for the namespaces concerned come through it
	devices []kernel.Device
}

// deviceAt is a device by its namespace and index.
type deviceAt struct {
	netns uint64
	index uint32
}

// readAll reads these namespaces, or synspy's own if there are none, and those where their devices'
// other ends are. From there it goes on to the roots only, and from these nowhere: the way to other
// containers is not the way in.
func (r *deviceReader) readAll(concerned []uint64) {
	var err error
	if r.own, err = kernel.OwnNetNS(); err != nil {
		r.missing(err)
		return
	}
	r.roots = []uint64{r.own}
	if first, err := kernel.Inode(kernel.ProcessNetNS(1)); err == nil && first != r.own {
		r.roots = append(r.roots, first)
	}
	if r.known, _, err = kernel.NetNamespaces("/proc"); err != nil {
		r.missing(err)
	}
	// Most other ends are in the roots: to be asked first.
	slices.SortStableFunc(r.known,
		func(a, b kernel.NetNS) int { return r.rank(a.Inode) - r.rank(b.Inode) })
	if len(concerned) == 0 {
		concerned = []uint64{r.own}
	}
	r.ends = make(map[deviceAt]bool)
	through := r.readEach(concerned, r.known, false)
	roots := slices.DeleteFunc(slices.Clone(r.known),
		func(ns kernel.NetNS) bool { return r.rank(ns.Inode) > 0 })
	r.readEach(r.readEach(through, roots, true), nil, true)
}

func (r *deviceReader) rank(inode uint64) int {
	if slices.Contains(r.roots, inode) {
		return 0
	}
	return 1
}

// readEach reads those namespaces that were not read before, and returns those of the candidates in
// which their devices' other ends are.
func (r *deviceReader) readEach(list []uint64, candidates []kernel.NetNS,
	through bool) (next []uint64) {
	for i, inode := range list {
		if slices.ContainsFunc(r.read,
			func(ns *deviceNamespace) bool { return ns.inode == inode }) {
			continue
		}
		if len(r.read) >= maxDeviceNamespaces {
			r.missing(fmt.Errorf("the devices of %d further network namespaces were not read", len(list)-i))
			break
		}
		ns := &deviceNamespace{inode: inode, through: through}
		var paths []string
		if ns.enter, paths = waysTo(inode, r.known); inode == r.own {
			ns.enter, paths = evidence.Enter{}, []string{""}
		}
		r.read = append(r.read, ns)
		err := errNoWay
		for _, path := range paths {
			if err = kernel.InNetNS(path, inode, func() error {
				next = append(next, r.readHere(ns, candidates)...)
				return nil
			}); err == nil {
				break
			}
		}
		if err != nil {
			r.missing(fmt.Errorf("the devices of network namespace %d were not read: %w", inode, err))
		}
	}
	return next
}

// readHere reads the devices of the calling thread's namespace, and returns those of the candidates
// where their other ends are.
func (r *deviceReader) readHere(ns *deviceNamespace, candidates []kernel.NetNS) (next []uint64) {
	var err error
	if ns.devices, err = device.Devices(); err != nil {
		r.missing(fmt.Errorf("in network namespace %d: %w", ns.inode, err))
	}
	if r.rules {
		if err := kernel.AddNetdevRules(ns.devices); err != nil {
			r.missing(fmt.Errorf("in network namespace %d: %w", ns.inode, err))
		}
	}
	if r.rank(ns.inode) == 0 {
		return nil
	}
	elsewhere := make(map[int32][]uint32)
	for _, d := range ns.devices {
		if d.LinkNetNS != nil && d.Link != 0 {
			elsewhere[*d.LinkNetNS] = append(elsewhere[*d.LinkNetNS], d.Link)
		}
	}
	for i := 0; i < len(candidates) && len(elsewhere) > 0; i++ {
		inode := candidates[i].Inode
		_, paths := waysInto(&candidates[i])
		for _, path := range paths {
			id, err := kernel.NetNSID(path)
			if err != nil {
				continue
			}
			if links, ok := elsewhere[id]; ok {
				next = append(next, inode)
				for _, index := range links {
					r.ends[deviceAt{inode, index}] = true
				}
				delete(elsewhere, id)
			}
			break
		}
	}
	if n := len(elsewhere); n > 0 && !ns.through {
		r.missing(fmt.Errorf("devices of network namespace %d have their other ends in %s that could not be found", ns.inode, render.Plural(n, "other network namespace")))
	}
	return next
}

// list lists the devices with programs, and how many devices there are in all.
func (r *deviceReader) list() (list []evidence.Device, read *uint64) {
	var n uint64
	for _, ns := range r.read {
		n += uint64(len(ns.devices))
		slices.SortStableFunc(ns.devices,
			func(a, b kernel.Device) int {
				return r.distance(ns, &a) - r.distance(ns, &b)
			})
		for i := range ns.devices {
			if d := r.device(ns, &ns.devices[i]); len(d.Programs) > 0 {
				list = append(list, d)
			}
		}
	}
	if n == 0 {
		return nil, nil
	}
	return list, &n
}

// distance is less for a device at whose other end the packets are wanted, and greater for one that
// leads to another namespace.
func (r *deviceReader) distance(ns *deviceNamespace, d *kernel.Device) int {
	switch {
	case r.ends[deviceAt{ns.inode, d.Index}]:
		return 0
	case ns.through && d.LinkNetNS != nil:
		return 2
	}
	return 1
}

// device leaves out what does not see packets that come in: programs at egress, but where the
// packets go out to a namespace concerned.
func (r *deviceReader) device(ns *deviceNamespace, d *kernel.Device) evidence.Device {
	out := evidence.Device{Name: d.Name, Enter: ns.enter}
	if ns.inode != r.own {
		out.NetNS = ns.inode
	}
	for _, t := range d.Takers {
		if !t.Hook.Egress() || r.ends[deviceAt{ns.inode, d.Index}] {
			out.Programs = append(out.Programs,
				evidence.Program{Hook: string(t.Hook), ID: t.ID, Name: t.Name,
					Filter: t.Filter, Redirect: t.Redirect})
		}
	}
	return out
}
