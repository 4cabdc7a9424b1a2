// SPDX-License-Identifier: Apache-2.0

// Package device lists the network devices of a namespace with everything on them that may take
// packets before the IP stack does.
package device

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
)

// Devices lists the network devices of the calling thread's namespace with everything on them that may take
// packets before the IP stack does: what [kernel.Devices] lists, tcx and netkit, with the programs' names.
// Names take CAP_SYS_ADMIN and are empty without. A list comes even with an error, which then says what
// is missing from it.
func Devices() ([]kernel.Device, error) {
	list, err := kernel.Devices()
	errs := []error{err}
	names := make(map[uint32]string)
	for i := range list {
		d := &list[i]
		for _, at := range []struct {
			hook   kernel.Hook
			attach ebpf.AttachType
		}{
			{kernel.HookTCXIngress, ebpf.AttachTCXIngress}, {kernel.HookTCXEgress,
				ebpf.AttachTCXEgress},
			{kernel.HookNetkit,
				ebpf.AttachNetkitPrimary}, // what is sent to the other end
		} {
			if at.hook == kernel.HookNetkit && d.Kind != "netkit" {
				continue
			}
			programs, err := attached(d.Index, at.attach)
			if err != nil {
				errs = append(errs,
					fmt.Errorf("list %s programs of %q: %w", at.hook, d.Name,
						err))
			}
			for _, id := range programs {
				d.Takers = append(d.Takers, kernel.Taker{Hook: at.hook, ID: id})
			}
		}
		for j := range d.Takers {
			d.Takers[j].Name = programName(d.Takers[j].ID, names)
		}
	}
	return list, errors.Join(errs...)
}

// attached lists a device's programs at a place that the kernel may not have: EINVAL before 6.6 (tcx) and 6.7
// (netkit). EACCES is the other end's of a netkit device, which has none of its own.
func attached(index uint32, at ebpf.AttachType) ([]uint32, error) {
	found, err := link.QueryPrograms(link.QueryOptions{Target: int(index), Attach: at})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported), errors.Is(err,
		unix.EACCES),
		errors.Is(err, unix.ENODEV): // it went meanwhile
		return nil, nil
	case err != nil:
		return nil, err
	}
	ids := make([]uint32, 0, len(found.Programs))
	for _, p := range found.Programs {
		ids = append(ids, uint32(p.ID))
	}
	return ids, nil
}

// programName asks for a program's name once; empty where it has none or is not told.
func programName(id uint32, known map[uint32]string) string {
	if id == 0 {
		return ""
	}
	if name, ok := known[id]; ok {
		return name
	}
	known[id] = ""
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer program.Close()
	if info, err := program.Info(); err == nil {
		known[id] = info.Name
	}
	return known[id]
}
