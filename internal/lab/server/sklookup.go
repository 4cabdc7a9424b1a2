// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/synspy/synspy/internal/lab/world"
)

// Steer has an sk_lookup program give the SYNs for a port to a server's listener, wherever that is
// bound to. The error wraps ErrCannotHold where the kernel takes no such program (before 5.9).
func Steer(w *world.World, port uint16, s *Server) error {
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Name: "lab_sockets", Type: ebpf.SockMap,
		KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return world.Untaken("sk_lookup", err)
	}
	w.Keep(sockets)
	listener, err := s.listener()
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := sockets.Put(uint32(0), uint64(listener.Fd())); err != nil {
		return world.Untaken("sk_lookup", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "lab_steer", Type: ebpf.SkLookup,
		AttachType: ebpf.AttachSkLookup, License: "GPL",
		Instructions: giveTo(sockets.FD(), port)})
	if err != nil {
		return world.Untaken("sk_lookup", err)
	}
	w.Keep(program)
	attached, err := link.AttachNetNs(int(w.Ns.Fd()), program)
	if err != nil {
		return world.Untaken("sk_lookup", err)
	}
	w.Keep(attached)
	return nil
}

// giveTo is the code of an sk_lookup program that gives what is for the port to the first socket of
// the map.
func giveTo(sockets int, port uint16) asm.Instructions {
	const localPort = 60 // of struct bpf_sk_lookup
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, localPort, asm.Word),
		asm.JNE.Imm(asm.R2, int32(port), "pass"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, sockets),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnSkAssign.Call(),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // SK_PASS
		asm.Return(),
	}
}

// listener takes a copy of the descriptor of the server's listener.
func (s *Server) listener() (*os.File, error) {
	process, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: it needs pidfd_open: %w", world.ErrCannotHold, err)
	}
	defer unix.Close(process)
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.PID))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		n, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		fd, err := unix.PidfdGetfd(process, n, 0)
		if err != nil {
			continue
		}
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET,
			unix.SO_ACCEPTCONN); err == nil && listens != 0 {
			return os.NewFile(uintptr(fd), "listener"), nil
		}
		unix.Close(fd)
	}
	return nil, errors.New("find the server's listener: it has none")
}
