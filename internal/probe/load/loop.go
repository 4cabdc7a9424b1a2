// SPDX-License-Identifier: Apache-2.0

package load

import (
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// withoutLoops takes the callbacks of bpf_loop out of a program, for a kernel that
// has none. Kernels before 5.13 do not know a load of a function's address, count
// as functions only what is called, and look before they prune dead code.
func withoutLoops(program asm.Instructions) asm.Instructions {
	called := make(map[string]bool)
	for i, ins := range program {
		switch {
		case ins.IsLoadOfFunctionPointer():
			program[i] = asm.LoadImm(ins.Dst, 0, asm.DWord).WithSource(ins.Source())
		case ins.IsFunctionCall():
			called[ins.Reference()] = true
		}
	}
	var kept asm.Instructions
	keep := true
	for i, ins := range program {
		if i > 0 && btf.FuncMetadata(&ins) != nil {
			keep = called[ins.Symbol()]
		}
		if keep {
			kept = append(kept, ins)
		}
	}
	return kept
}
