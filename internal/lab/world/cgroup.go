// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Cgroup is a private one of version 2. Whether the host has mounted that, and
// where, does not matter: fsmount's mount is attached nowhere.
type Cgroup struct {
	mount, Dir *os.File
	Name       string
}

// MountCgroups mounts the hierarchy where only the returned file leads to.
func MountCgroups() (*os.File, error) {
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

// NewCgroup makes a cgroup that the World's Close removes.
func (w *World) NewCgroup() (*Cgroup, error) {
	mount, err := MountCgroups()
	if err != nil {
		return nil, err
	}
	c := &Cgroup{mount: mount, Name: fmt.Sprintf("synspy-lab-%d-%d", os.Getpid(), w.NetNS())}
	if err := unix.Mkdirat(int(mount.Fd()), c.Name, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make cgroup: %w", err), mount.Close())
	}
	w.Keep(c)
	dir, err := unix.Openat(int(mount.Fd()), c.Name,
		unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	c.Dir = os.NewFile(uintptr(dir), c.Name)
	return c, nil
}

// Close removes the cgroup, which must be empty by then.
func (c *Cgroup) Close() error {
	err := unix.Unlinkat(int(c.mount.Fd()), c.Name, unix.AT_REMOVEDIR)
	if err != nil {
		err = fmt.Errorf("remove cgroup: %w", err)
	}
	if c.Dir != nil {
		err = errors.Join(err, c.Dir.Close())
	}
	return errors.Join(err, c.mount.Close())
}

// Refusal is what a filter drops: packets to a port with exactly these TCP flags.
type Refusal struct {
	Port  uint16
	Flags uint8
}

// AttachIngress gives the cgroup a program that sees what arrives for its sockets.
func (w *World) AttachIngress(c *Cgroup, f Family, refusals []Refusal) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lab_ingress", Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress,
		License:      "GPL",
		Instructions: RefuseIngress(f, refusals),
	})
	if err != nil {
		return Untaken("cgroup_skb", err)
	}
	w.Keep(program)
	attached, err := link.AttachRawLink(link.RawLinkOptions{
		Target: int(c.Dir.Fd()), Program: program, Attach: ebpf.AttachCGroupInetIngress,
	})
	if err != nil {
		return Untaken("cgroup_skb", err)
	}
	w.Keep(attached)
	return nil
}

// RefuseIngress returns 0, which drops the packet, for each refusal, and 1 for the
// rest. Unlike a socket's filter it sees the packet from its IP header on; the
// clients here send no IP options.
func RefuseIngress(f Family, refusals []Refusal) asm.Instructions {
	header := int32(20)
	if f.IPv6() {
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
		code = append(code, asm.JEq.Imm(asm.R1, int32(r.Port)<<8|int32(r.Flags), "refuse"))
	}
	return append(code,
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("refuse"),
		asm.Return(),
	)
}
