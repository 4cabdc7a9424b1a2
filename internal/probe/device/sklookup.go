// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// SkLookups names the BPF programs that choose the sockets of a network namespace's packets before the kernel's lookup does
// (sk_lookup, 5.9), by the namespace's inode. It takes CAP_SYS_ADMIN; on older kernels there are none.
func SkLookups() (map[uint64][]string, error) {
	programs, names := make(map[uint64][]string), make(map[uint32]string)
	all := link.Iterator{}
	defer all.Close()
	for all.Next() {
		info, err := all.Link.Info()
		if err != nil {
			continue // it went meanwhile
		}
		at := info.NetNs()
		if at == nil || ebpf.AttachType(at.AttachType) != ebpf.AttachSkLookup {
			continue
		}
		name := fmt.Sprintf("id %d", info.Program)
		if called := programName(uint32(info.Program), names); called != "" {
			name = called + " (" + name + ")"
		}
		programs[uint64(at.NetnsInode)] = append(programs[uint64(at.NetnsInode)], name)
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
		return programs, fmt.Errorf("list sk_lookup programs: %w", err)
	}
	return programs, nil
}
