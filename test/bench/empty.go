// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// emptyPlace is where the empty program is called: the exit of the function that an
// accepted SYN takes, which is where synspy looks at it too.
const emptyPlace = "tcp_v4_conn_request"

// runEmpty is a tracer that does nothing: what it takes is the price of being called at
// that place, and no fexit program there can take less. It ends with the context.
func runEmpty(ctx context.Context, stdout io.Writer) error {
	detach, err := attachEmpty()
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "READY")
	<-ctx.Done()
	return detach()
}

// attachEmpty attaches a program that returns at once. It fails where the kernel lets no
// program attach to a function's exit.
func attachEmpty() (detach func() error, err error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "fexit_empty", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: emptyPlace,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual BSD/GPL", // as synspy's
	})
	if err != nil {
		return nil, fmt.Errorf("load empty program: %w", err)
	}
	attached, err := link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceFExit})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach empty program: %w", err), program.Close())
	}
	return func() error { return errors.Join(attached.Close(), program.Close()) }, nil
}

// findEmpty gives the path of the program that has the verb empty, this one, or nothing
// where the empty program cannot attach.
func (b *bench) findEmpty() (self string, err error) {
	detach, err := attachEmpty()
	if err != nil {
		b.say("measuring without the empty program: %v", err)
		return "", nil
	}
	if err := detach(); err != nil {
		return "", err
	}
	return os.Executable()
}
