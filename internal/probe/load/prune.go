// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"github.com/synspy/synspy/internal/probe/facts"
	"slices"
	"strings"
)

// Where an ELF64 header has the table of sections, and a section its type.
const (
	elfSectionsAt  = 0x28
	elfSectionSize = 64
	elfTypeAt      = 4
)

// btfLinesAt is where the header of .BTF.ext has the length of the source lines.
const btfLinesAt = 20

// prune blanks the programs out of a compiled object that wanted does not name by their section,
// and the source lines. The loader gives every program copies of all functions it calls, needed or
// not: that would be 7 MB more of peak memory.
func prune(object []byte, wanted func(section string) bool) ([]byte, error) {
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read BPF objects: %w", err)
	}
	object = slices.Clone(object)
	// Source lines are for the verifier's log alone. Left of them is the size of a record, which must
	// be there.
	if extra := file.Section(".BTF.ext"); extra != nil && extra.Size > btfLinesAt+4 {
		binary.LittleEndian.PutUint32(object[extra.Offset+btfLinesAt:], 4)
	}
	table := binary.LittleEndian.Uint64(object[elfSectionsAt:])
	for i, section := range file.Sections {
		name := strings.TrimPrefix(section.Name, ".rel")
		program := strings.Contains(name, "/") // sections are KIND/TARGET
		if !program || wanted(name) {
			continue
		}
		at := table + uint64(i)*elfSectionSize + elfTypeAt
		binary.LittleEndian.PutUint32(object[at:], uint32(elf.SHT_NULL))
	}
	return object, nil
}

// SectionOf is the section of a program of bpf/synspy.bpf.c: its kind and target.
func SectionOf(program string) string {
	program = strings.TrimSuffix(program, facts.Twin)
	switch program {
	case "tp_btf_listen":
		return "tp_btf/inet_sock_set_state"
	case "iter_task_file":
		return "iter/task_file"
	case "snapshot":
		return "raw_tp/synspy_snapshot"
	}
	for _, kind := range []string{"fentry", "fexit", "kprobe", "kretprobe", "tp_btf"} {
		if target, ok := strings.CutPrefix(program, kind+"_"); ok {
			return kind + "/" + target
		}
	}
	return program
}
