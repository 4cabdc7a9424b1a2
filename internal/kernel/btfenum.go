package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// ErrNoEnum says that no anonymous enum has the enumerators asked for.
var ErrNoEnum = errors.New("type information has no such enum")

// btfVMLinux is where the kernel keeps its type information.
const btfVMLinux = "/sys/kernel/btf/vmlinux"

// AnonymousEnum returns the enumerators of the anonymous enum whose first one
// is called first, from raw BTF; an empty file means the running kernel's. It
// walks the records without decoding them: decoding every type of a kernel to
// find one that has no name costs tens of megabytes and a third of a second.
func AnonymousEnum(file, first string) (map[string]uint32, error) {
	if file == "" {
		file = btfVMLinux
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read type information: %w", err)
	}
	return anonymousEnum(raw, first)
}

// Sizes and kinds of include/uapi/linux/btf.h.
const (
	btfHeader     = 24
	btfType       = 12
	btfKindInt    = 1
	btfKindArray  = 3
	btfKindStruct = 4
	btfKindUnion  = 5
	btfKindEnum   = 6
	btfKindProto  = 13
	btfKindVar    = 14
	btfKindSecs   = 15
	btfKindTag    = 17
	btfKindEnum64 = 19
)

// btfTrailer is how many bytes follow a type's record.
func btfTrailer(kind, members uint32) int {
	n := int(members)
	switch kind {
	case btfKindInt, btfKindVar, btfKindTag:
		return 4
	case btfKindArray:
		return 12
	case btfKindStruct, btfKindUnion, btfKindSecs, btfKindEnum64:
		return 12 * n
	case btfKindEnum, btfKindProto:
		return 8 * n
	}
	return 0
}

func anonymousEnum(raw []byte, first string) (map[string]uint32, error) {
	if len(raw) < btfHeader {
		return nil, fmt.Errorf("%w: no header", ErrNoEnum)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if order.Uint16(raw) != 0xeb9f {
		order = binary.BigEndian
	}
	header := order.Uint32(raw[4:])
	section := func(offset, length uint32) ([]byte, error) {
		from := uint64(header) + uint64(offset)
		if from+uint64(length) > uint64(len(raw)) {
			return nil, fmt.Errorf("%w: cut short", ErrNoEnum)
		}
		return raw[from : from+uint64(length)], nil
	}
	types, err := section(order.Uint32(raw[8:]), order.Uint32(raw[12:]))
	if err != nil {
		return nil, err
	}
	names, err := section(order.Uint32(raw[16:]), order.Uint32(raw[20:]))
	if err != nil {
		return nil, err
	}
	name := func(offset uint32) string {
		if int(offset) >= len(names) {
			return ""
		}
		text, _, _ := bytes.Cut(names[offset:], []byte{0})
		return string(text)
	}
	for len(types) >= btfType {
		info := order.Uint32(types[4:])
		kind, members := info>>24&0x1f, info&0xffff
		size := btfType + btfTrailer(kind, members)
		if size > len(types) {
			break
		}
		if kind == btfKindEnum && order.Uint32(types) == 0 && members > 0 &&
			name(order.Uint32(types[btfType:])) == first {
			values := make(map[string]uint32, members)
			for at := btfType; at < size; at += 8 {
				values[name(order.Uint32(types[at:]))] = order.Uint32(types[at+4:])
			}
			return values, nil
		}
		types = types[size:]
	}
	return nil, fmt.Errorf("%w: none starts with %s", ErrNoEnum, first)
}
