// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// cgroup is a private one of version 2. Whether the host has mounted that, and
// where, does not matter: fsmount's mount is attached nowhere.
type cgroup struct {
	mount, dir *os.File
	name       string
}

// mountCgroups mounts the hierarchy where only the returned file leads to.
func mountCgroups() (*os.File, error) {
	context, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%w: it needs cgroup version 2: %w", ErrCannotHold, err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("%w: it needs cgroup version 2: %w", ErrCannotHold, err)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount cgroups: %w", err)
	}
	return os.NewFile(uintptr(mount), "cgroup2"), nil
}

// newCgroup makes a cgroup that the World's Close removes.
func (w *World) newCgroup() (*cgroup, error) {
	mount, err := mountCgroups()
	if err != nil {
		return nil, err
	}
	c := &cgroup{mount: mount, name: fmt.Sprintf("synspy-lab-%d-%d", os.Getpid(), w.NetNS())}
	if err := unix.Mkdirat(int(mount.Fd()), c.name, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make cgroup: %w", err), mount.Close())
	}
	w.keep(c)
	dir, err := unix.Openat(int(mount.Fd()), c.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	c.dir = os.NewFile(uintptr(dir), c.name)
	return c, nil
}

// Close removes the cgroup, which must be empty by then.
func (c *cgroup) Close() error {
	err := unix.Unlinkat(int(c.mount.Fd()), c.name, unix.AT_REMOVEDIR)
	if err != nil {
		err = fmt.Errorf("remove cgroup: %w", err)
	}
	if c.dir != nil {
		err = errors.Join(err, c.dir.Close())
	}
	return errors.Join(err, c.mount.Close())
}

// refusal is what a filter drops: packets to a port with exactly these TCP flags.
type refusal struct {
	port  uint16
	flags uint8
}

// attachIngress gives the cgroup a program that sees what arrives for its sockets.
func (w *World) attachIngress(c *cgroup, f family, refusals []refusal) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lab_ingress", Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress, License: "GPL",
		Instructions: refuseIngress(f, refusals),
	})
	if err != nil {
		return untaken("cgroup_skb", err)
	}
	w.keep(program)
	attached, err := link.AttachRawLink(link.RawLinkOptions{
		Target: int(c.dir.Fd()), Program: program, Attach: ebpf.AttachCGroupInetIngress,
	})
	if err != nil {
		return untaken("cgroup_skb", err)
	}
	w.keep(attached)
	return nil
}

// refuseIngress returns 0, which drops the packet, for each refusal, and 1 for the
// rest. Unlike a socket's filter it sees the packet from its IP header on; the
// clients here send no IP options.
func refuseIngress(f family, refusals []refusal) asm.Instructions {
	header := int32(20)
	if f.ipv6() {
		header = 40
	}
	const stack, length = -16, 14 // of the TCP header, up to its flags
	code := asm.Instructions{
		asm.Mov.Imm(asm.R2, header),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, length),
		asm.FnSkbLoadBytes.Call(),
		asm.LoadMem(asm.R1, asm.RFP, stack+2, asm.Half),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.LSh.Imm(asm.R1, 8),
		asm.LoadMem(asm.R2, asm.RFP, stack+13, asm.Byte),
		asm.Or.Reg(asm.R1, asm.R2),
	}
	for _, r := range refusals {
		code = append(code, asm.JEq.Imm(asm.R1, int32(r.port)<<8|int32(r.flags), "refuse"))
	}
	return append(code,
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("refuse"),
		asm.Return(),
	)
}
