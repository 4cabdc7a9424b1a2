// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/kernel"
)

// SecurityModule is a BPF program at security_inet_conn_request.
type SecurityModule struct{ target *ebpf.Map }

// refused is the map's only value: the listener whose connections are refused.
// A zero one is nobody's.
type refused struct{ NetNS, Port uint32 }

// Refuse has the module refuse connections to a port of a namespace.
func (m *SecurityModule) Refuse(netns uint64, port uint32) error {
	if err := m.target.Put(uint32(0), refused{uint32(netns), port}); err != nil {
		return fmt.Errorf("tell the LSM program whom to refuse: %w", err)
	}
	return nil
}

// LSM returns the World's security module. The error wraps ErrCannotHold where the
// kernel takes none.
func (w *World) LSM() (*SecurityModule, error) {
	if w.security != nil {
		return w.security, nil
	}
	// Without this a program can be attached all the same, and is never asked.
	if !slices.Contains(kernel.SecurityModules(), "bpf") {
		return nil, fmt.Errorf("%w: it needs CONFIG_BPF_LSM and bpf among the modules of /sys/kernel/security/lsm (see lsm= of the kernel's command line)", ErrCannotHold)
	}
	target, err := ebpf.NewMap(&ebpf.MapSpec{Name: "lab_refused", Type: ebpf.Array, KeySize: 4,
		ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make LSM program's map: %w", err)
	}
	w.Keep(target)
	code, err := refuseConnections(target)
	if err != nil {
		return nil, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lab_refuse", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac,
		AttachTo: "inet_conn_request", License: "GPL",
		Instructions: code,
	})
	if err != nil {
		return nil, Untaken("LSM", err)
	}
	w.Keep(program)
	attached, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		return nil, Untaken("LSM", err)
	}
	w.Keep(attached)
	w.security = &SecurityModule{target}
	return w.security, nil
}

// refuseConnections is the program: EPERM for the target's connection requests. Its
// arguments are those of security_inet_conn_request, the listener being the first.
func refuseConnections(target *ebpf.Map) (asm.Instructions, error) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("%w: it needs the kernel's BTF: %w", ErrCannotHold, err)
	}
	number, err := offsetOf(types, "sock", "__sk_common", "skc_num")
	if err != nil {
		return nil, err
	}
	namespace, err := offsetOf(types, "sock", "__sk_common", "skc_net", "net")
	if err != nil {
		return nil, err
	}
	inode, err := offsetOf(types, "net", "ns", "inum")
	if err != nil {
		return nil, err
	}
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.LoadMapValue(asm.R3, target.FD(), 0),
		asm.LoadMem(asm.R4, asm.R3, 0, asm.Word),
		asm.LoadMem(asm.R5, asm.R3, 4, asm.Word),
		asm.LoadMem(asm.R6, asm.R2, number, asm.Half),
		asm.JNE.Reg(asm.R6, asm.R5, "allow"),
		asm.LoadMem(asm.R6, asm.R2, namespace, asm.DWord),
		asm.LoadMem(asm.R6, asm.R6, inode, asm.Word),
		asm.JNE.Reg(asm.R6, asm.R4, "allow"),
		asm.Mov.Imm(asm.R0, -int32(unix.EPERM)),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("allow"),
		asm.Return(),
	}, nil
}

// offsetOf finds a member, by way of structs and anonymous ones, in bytes from the
// beginning of a struct of the kernel's.
func offsetOf(types *btf.Spec, name string, path ...string) (int16, error) {
	var outer *btf.Struct
	if err := types.TypeByName(name, &outer); err != nil {
		return 0, fmt.Errorf("find struct %s in the kernel's types: %w", name, err)
	}
	var typ btf.Type = outer
	var offset btf.Bits
	for _, member := range path {
		found, ok := memberOf(typ, member)
		if !ok {
			return 0, fmt.Errorf("find %s of struct %s %v in the kernel's types",
				member, name, path)
		}
		typ, offset = found.Type, offset+found.Offset
	}
	return int16(offset.Bytes()), nil
}

// memberOf looks for a member by name, also inside those without one.
func memberOf(typ btf.Type, name string) (btf.Member, bool) {
	var members []btf.Member
	switch t := btf.UnderlyingType(typ).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		if m.Name == name {
			return m, true
		}
		if m.Name != "" {
			continue
		}
		if inner, ok := memberOf(m.Type, name); ok {
			inner.Offset += m.Offset
			return inner, true
		}
	}
	return btf.Member{}, false
}
