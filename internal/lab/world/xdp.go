// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Verdicts of an XDP program.
const (
	DropXDP = 1 // XDP_DROP
	PassXDP = 2 // XDP_PASS
)

// DropSYNs is the code of an XDP program that drops IPv4 SYNs to the port and lets everything else
// pass. The IP header, without options, begins at the offset: behind that of Ethernet, or at 0 on a
// TUN device.
func DropSYNs(offset int16, port uint16) asm.Instructions {
	tcp := offset + 20
	return asm.Instructions{
		asm.Mov.Imm(asm.R0, PassXDP),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data of struct xdp_md
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, int32(tcp+20)),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R4, asm.R2, offset, asm.Byte),
		asm.JNE.Imm(asm.R4, 0x45, "pass"),
		asm.LoadMem(asm.R4, asm.R2, offset+9, asm.Byte),
		asm.JNE.Imm(asm.R4, unix.IPPROTO_TCP, "pass"),
		asm.LoadMem(asm.R4, asm.R2, tcp+2, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.JNE.Imm(asm.R4, int32(port), "pass"),
		asm.LoadMem(asm.R4, asm.R2, tcp+13, asm.Byte),
		asm.And.Imm(asm.R4, FlagSYN|FlagACK),
		asm.JNE.Imm(asm.R4, FlagSYN, "pass"),
		asm.Mov.Imm(asm.R0, DropXDP),
		asm.Return().WithSymbol("pass"),
	}
}

// AttachXDP lets a program of that name see what arrives at the device. The error wraps
// ErrCannotHold where the kernel takes none.
func (w *World) AttachXDP(device, name string, code asm.Instructions,
	mode link.XDPAttachFlags) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP,
		License: "GPL", Instructions: code})
	if err != nil {
		return Untaken("XDP", err)
	}
	w.Keep(program)
	return w.Do(func() error {
		index, err := DeviceIndex(device)
		if err != nil {
			return err
		}
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: index,
			Flags: mode})
		if err != nil {
			return Untaken("XDP", err)
		}
		w.Keep(attached)
		return nil
	})
}

// Shielded gives the clients an Ethernet device to send through, where a program of that name drops
// their SYNs to the server in the driver, before the kernel has made packets of them.
func (w *World) Shielded(ctx context.Context, device, name string) (*Ethernet, error) {
	e, err := w.Ethernet(device)
	if err != nil {
		return nil, err
	}
	if err := w.AttachXDP(device, name, DropSYNs(EthernetHeader, Server4.Port()),
		link.XDPDriverMode); err != nil {
		return nil, err
	}
	// Whatever else comes this way arrives: it is the program that drops the rest.
	c := w.Client(At(Server4, Port+1))
	if err := e.Send(c.Frame(c.SYNSegment())); err != nil {
		return nil, err
	}
	return e, c.Wait(ctx, "RST", c.WasReset)
}
