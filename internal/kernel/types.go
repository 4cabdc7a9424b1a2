// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// ErrNoTypes says that there is no type information where it was looked for.
var ErrNoTypes = errors.New("no BTF type information")

// BTFFile is where the kernel keeps its type information.
const BTFFile = "/sys/kernel/btf/vmlinux"

// Types is raw BTF, walked without being decoded. A library decodes a type with
// everything it leads to, which for a kernel's sockets is most of the kernel:
// measured, 20 MB and a third of a second to learn a dozen numbers.
type Types struct {
	order   binary.ByteOrder
	types   []byte
	names   []byte
	offsets []uint32 // of each type ID in types
}

// Sizes and kinds of include/uapi/linux/btf.h.
const (
	btfMagic       = 0xeb9f
	btfHeader      = 24
	btfType        = 12
	btfKindInt     = 1
	btfKindPointer = 2
	btfKindArray   = 3
	btfKindStruct  = 4
	btfKindUnion   = 5
	btfKindEnum    = 6
	btfKindTypedef = 8
	btfKindFunc    = 12
	btfKindProto   = 13
	btfKindVar     = 14
	btfKindSection = 15
	btfKindTag     = 17
	btfKindEnum64  = 19
)

// ReadTypes reads the BTF of a file, or, for an empty name, of this kernel.
func ReadTypes(file string) (*Types, error) {
	if file == "" {
		file = BTFFile
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTypes, err)
	}
	t, err := parseTypes(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoTypes, file, err)
	}
	return t, nil
}

func parseTypes(raw []byte) (*Types, error) {
	if len(raw) < btfHeader {
		return nil, errors.New("file too short")
	}
	t := &Types{order: binary.LittleEndian}
	if t.order.Uint16(raw) != btfMagic {
		t.order = binary.BigEndian
	}
	if t.order.Uint16(raw) != btfMagic {
		return nil, errors.New("not raw BTF")
	}
	section := func(at int) ([]byte, error) {
		from := uint64(t.order.Uint32(raw[4:])) + uint64(t.order.Uint32(raw[at:]))
		to := from + uint64(t.order.Uint32(raw[at+4:]))
		if to > uint64(len(raw)) {
			return nil, errors.New("file cut short")
		}
		return raw[from:to], nil
	}
	var err error
	if t.types, err = section(8); err != nil {
		return nil, err
	}
	if t.names, err = section(16); err != nil {
		return nil, err
	}
	t.offsets = make([]uint32, 1, 1+len(t.types)/(2*btfType)) // ID 0 is void
	for at := 0; at < len(t.types); {
		if at+btfType > len(t.types) {
			return nil, errors.New("type cut short")
		}
		t.offsets = append(t.offsets, uint32(at))
		at += btfType + t.trailer(at)
		if at > len(t.types) {
			return nil, errors.New("type cut short")
		}
	}
	return t, nil
}

func (t *Types) kind(at int) uint32   { return t.order.Uint32(t.types[at+4:]) >> 24 & 0x1f }
func (t *Types) length(at int) int    { return int(t.order.Uint32(t.types[at+4:]) & 0xffff) }
func (t *Types) target(at int) uint32 { return t.order.Uint32(t.types[at+8:]) }

// trailer is how many bytes follow a type's record.
func (t *Types) trailer(at int) int {
	switch n := t.length(at); t.kind(at) {
	case btfKindInt, btfKindVar, btfKindTag:
		return 4
	case btfKindArray:
		return 12
	case btfKindStruct, btfKindUnion, btfKindSection, btfKindEnum64:
		return 12 * n
	case btfKindEnum, btfKindProto:
		return 8 * n
	}
	return 0
}

// name is the bytes of a name, without a copy.
func (t *Types) name(at int) []byte {
	offset := t.order.Uint32(t.types[at:])
	if int(offset) >= len(t.names) {
		return nil
	}
	name := t.names[offset:]
	return name[:max(bytes.IndexByte(name, 0), 0)]
}

// offset is where a type ID's record is; -1 for an ID out of range.
func (t *Types) offset(id uint32) int {
	if id == 0 || int(id) >= len(t.offsets) {
		return -1
	}
	return int(t.offsets[id])
}

// Functions returns how many parameters the named functions have. Those that
// the kernel lacks, or that were inlined everywhere, are absent.
func (t *Types) Functions(names ...string) map[string]int {
	return t.prototypes(btfKindFunc, "", names)
}

// Tracepoints returns how many arguments the named tracepoints hand to a BPF
// program: those of the typedef btf_trace_NAME but its first.
func (t *Types) Tracepoints(names ...string) map[string]int {
	counts := t.prototypes(btfKindTypedef, "btf_trace_", names)
	for name := range counts {
		counts[name]--
	}
	return counts
}

func (t *Types) prototypes(kind uint32, prefix string, names []string) map[string]int {
	wanted := make(map[string]string, len(names))
	for _, name := range names {
		wanted[prefix+name] = name
	}
	counts := make(map[string]int, len(names))
	for _, at := range t.offsets[1:] {
		if t.kind(int(at)) != kind {
			continue
		}
		name, ok := wanted[string(t.name(int(at)))]
		if !ok {
			continue
		}
		proto := t.offset(t.target(int(at)))
		if proto >= 0 && t.kind(proto) == btfKindPointer {
			proto = t.offset(t.target(proto))
		}
		if proto >= 0 && t.kind(proto) == btfKindProto {
			counts[name] = t.length(proto)
		}
	}
	return counts
}

// AnonymousEnum returns the enumerators of the enum without a name whose first
// one is called first; nil if there is none.
func (t *Types) AnonymousEnum(first string) map[string]uint32 { return t.enum("", first) }

// Enum returns the enumerators of the named enum; nil if there is none.
func (t *Types) Enum(name string) map[string]uint32 { return t.enum(name, "") }

// enum finds one by its name, and, if first is not empty, its first enumerator.
func (t *Types) enum(name, first string) map[string]uint32 {
	for _, offset := range t.offsets[1:] {
		at := int(offset)
		if t.kind(at) != btfKindEnum || t.length(at) == 0 || string(t.name(at)) != name ||
			(first != "" && string(t.name(at+btfType)) != first) {
			continue
		}
		values := make(map[string]uint32, t.length(at))
		for member := at + btfType; member < at+btfType+t.trailer(at); member += 8 {
			values[string(t.name(member))] = t.order.Uint32(t.types[member+4:])
		}
		return values
	}
	return nil
}
