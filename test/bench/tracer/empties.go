// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// RunEmpties is a tracer that does nothing, at the places that a file lists: what it takes is
// the price of being called there. It ends with the context.
func RunEmpties(ctx context.Context, args []string, stdout io.Writer) (err error) {
	if len(args) != 1 {
		return errors.New("usage: bench empties FILE")
	}
	content, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("read places: %w", err)
	}
	var places []Place
	if err := json.Unmarshal(content, &places); err != nil {
		return fmt.Errorf("read places: %w", err)
	}
	for _, p := range places {
		detach, err := p.AttachEmpty()
		if err != nil {
			return fmt.Errorf("attach empty program (%s %s): %w", p.Kind, p.At, err)
		}
		defer func() { err = errors.Join(err, detach()) }()
	}
	fmt.Fprintln(stdout, "READY")
	<-ctx.Done()
	return nil
}

// AttachEmpty attaches a program that returns at once. It fails where the kernel lets no
// program attach.
func (p Place) AttachEmpty() (detach func() error, err error) {
	spec := &ebpf.ProgramSpec{
		Name: p.Kind + "_empty", Type: ebpf.Tracing, AttachType: attachTypes[p.Kind], AttachTo: p.At,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual BSD/GPL", // as synspy's
	}
	if attachTypes[p.Kind] == 0 {
		spec.Type, spec.AttachTo = ebpf.Kprobe, ""
	}
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	attached, err := p.attach(program)
	if err != nil {
		return nil, errors.Join(err, program.Close())
	}
	return func() error { return errors.Join(attached.Close(), program.Close()) }, nil
}

func (p Place) attach(program *ebpf.Program) (link.Link, error) {
	switch p.Kind {
	case kindKprobe:
		return link.Kprobe(p.At, program, nil)
	case kindKretprobe:
		// As many calls at once as synspy follows.
		return link.Kretprobe(p.At, program, &link.KprobeOptions{RetprobeMaxActive: 1024})
	}
	return link.AttachTracing(link.TracingOptions{Program: program, AttachType: attachTypes[p.Kind]})
}
