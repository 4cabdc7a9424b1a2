// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// image is a 64-bit ELF file, of which only what is asked for is read. debug/elf is
// not made for hostile files: it reads whole tables.
type image struct {
	file     io.ReaderAt
	order    binary.ByteOrder
	machine  elf.Machine
	entry    uint64
	segments []elf.Prog64 // those with code
	sections []section
}

type section struct {
	elf.Section64
	name string
}

// Limits of what is read of an ELF file.
const (
	maxSegments     = 1 << 10
	maxSections     = 1 << 13
	maxSectionNames = 1 << 20
	maxSymbolBytes  = 1 << 28
	symbolSize      = 24
)

var errNotELF = errors.New("not a 64-bit ELF file")

// openImage reads an ELF file's header and its tables of segments and sections.
func openImage(file io.ReaderAt) (*image, error) {
	ident := make([]byte, elf.EI_NIDENT)
	if _, err := file.ReadAt(ident, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotELF, err)
	}
	i := &image{file: file, order: binary.LittleEndian}
	if elf.Data(ident[elf.EI_DATA]) == elf.ELFDATA2MSB {
		i.order = binary.BigEndian
	}
	if !bytes.HasPrefix(ident, []byte(elf.ELFMAG)) ||
		elf.Class(ident[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return nil, errNotELF
	}
	var header elf.Header64
	if err := i.read(0, &header); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotELF, err)
	}
	i.machine, i.entry = elf.Machine(header.Machine), header.Entry
	if header.Phnum > maxSegments || int(header.Phentsize) != binary.Size(elf.Prog64{}) {
		return nil, fmt.Errorf("%w: %d segments of %d bytes", errNotELF, header.Phnum,
			header.Phentsize)
	}
	segments := make([]elf.Prog64, header.Phnum)
	if err := i.read(header.Phoff, segments); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotELF, err)
	}
	for _, s := range segments {
		if elf.ProgType(s.Type) == elf.PT_LOAD && elf.ProgFlag(s.Flags)&elf.PF_X != 0 {
			i.segments = append(i.segments, s)
		}
	}
	i.readSections(&header) // a file may do without
	return i, nil
}

func (i *image) readSections(header *elf.Header64) {
	if header.Shnum > maxSections || int(header.Shentsize) != binary.Size(elf.Section64{}) ||
		header.Shstrndx >= header.Shnum {
		return
	}
	raw := make([]elf.Section64, header.Shnum)
	if i.read(header.Shoff, raw) != nil {
		return
	}
	names := raw[header.Shstrndx]
	if names.Size > maxSectionNames {
		return
	}
	text := make([]byte, names.Size)
	if _, err := i.file.ReadAt(text, int64(names.Off)); err != nil {
		return
	}
	for _, s := range raw {
		var name []byte
		switch {
		case elf.SectionFlag(s.Flags)&elf.SHF_COMPRESSED != 0:
			s.Type = uint32(elf.SHT_NULL) // none that is looked for
		case uint64(s.Name) < names.Size:
			name, _, _ = bytes.Cut(text[s.Name:], []byte{0})
		}
		i.sections = append(i.sections, section{s, string(name)}) // they refer to each other by number
	}
}

// read decodes what is at an offset of the file.
func (i *image) read(at uint64, into any) error {
	raw := make([]byte, binary.Size(into))
	if _, err := i.file.ReadAt(raw, int64(at)); err != nil { // a negative offset is an error as well
		return err
	}
	_, err := binary.Decode(raw, i.order, into)
	return err
}

// address is where a byte of the file was meant to be in memory; false if it is no code.
func (i *image) address(offset uint64) (uint64, bool) {
	for _, s := range i.segments {
		if offset >= s.Off && offset-s.Off < s.Filesz {
			return offset - s.Off + s.Vaddr, true
		}
	}
	return 0, false
}

// section returns the first section of one of the names.
func (i *image) section(names ...string) (section, bool) {
	at := slices.IndexFunc(i.sections, func(s section) bool {
		return slices.Contains(names, s.name)
	})
	if at < 0 {
		return section{}, false
	}
	return i.sections[at], true
}

// text reads a zero-terminated string of a section.
func (i *image) text(s section, at uint64) (string, bool) {
	if at >= s.Size {
		return "", false
	}
	raw := make([]byte, min(maxMangled+1, s.Size-at))
	n, err := i.file.ReadAt(raw, int64(s.Off+at))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", false
	}
	name, _, ok := bytes.Cut(raw[:n], []byte{0})
	return string(name), ok && len(name) > 0
}

// place is a function and how far in it an address is.
type place struct {
	name   string
	offset uint64
}

// functions names the functions that the addresses, which are sorted, are in.
func (i *image) functions(ctx context.Context, addresses []uint64) (map[uint64]place, error) {
	found := make(map[uint64]place, len(addresses))
	var errs []error
	for _, kind := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		for _, s := range i.sections {
			if elf.SectionType(s.Type) != kind {
				continue
			}
			errs = append(errs, i.symbols(ctx, s, addresses, found))
		}
	}
	return found, errors.Join(append(errs, i.goFunctions(ctx, addresses, found))...)
}

// unsized is a symbol without a size, as assembly has them: code goes on until the next symbol.
type unsized struct {
	start   uint64
	name    uint32
	section uint16
	sized   bool // it has one, and ends before the address
}

// maxUnsized is how far such code may go on.
const maxUnsized = 1 << 14

// holds reports whether the address is in that section.
func (i *image) holds(section uint16, address uint64) bool {
	if int(section) >= len(i.sections) {
		return false
	}
	s := i.sections[section]
	return address >= s.Addr && address-s.Addr < s.Size
}

// symbols walks one symbol table.
func (i *image) symbols(ctx context.Context, table section, addresses []uint64,
	found map[uint64]place) error {
	if int(table.Link) >= len(i.sections) || table.Entsize != symbolSize ||
		table.Size > maxSymbolBytes {
		return nil
	}
	names := i.sections[table.Link]
	nearest := make([]unsized, len(addresses))
	fresh := make(map[uint64]place)
	buffer := make([]byte, 4096*symbolSize)
	for at := uint64(0); at+symbolSize <= table.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buffer[:min(uint64(len(buffer)), (table.Size-at)/symbolSize*symbolSize)]
		if n, _ := i.file.ReadAt(chunk, int64(table.Off+at)); n < len(chunk) {
			return fmt.Errorf("read symbols: cut short at %d of %d bytes", at,
				table.Size)
		}
		at += uint64(len(chunk))
		for ; len(chunk) > 0; chunk = chunk[symbolSize:] {
			kind := elf.ST_TYPE(chunk[4])
			if kind != elf.STT_FUNC && kind != elf.STT_GNU_IFUNC ||
				i.order.Uint16(chunk[6:]) == uint16(elf.SHN_UNDEF) {
				continue
			}
			name, start, size := i.order.Uint32(chunk), i.order.Uint64(chunk[8:]),
				i.order.Uint64(chunk[16:])
			first, _ := slices.BinarySearch(addresses, start)
			if first < len(addresses) && start >= nearest[first].start {
				nearest[first] = unsized{start, name, i.order.Uint16(chunk[6:]),
					size > 0}
			}
			if first == len(addresses) || addresses[first]-start >= size {
				continue
			}
			text, ok := i.text(names, uint64(name))
			for k := first; ok && k < len(addresses) && addresses[k]-start < size; k++ {
				offset := addresses[k] - start
				// The innermost function, if they overlap.
				if old, has := fresh[addresses[k]]; !has || offset < old.offset ||
					offset == old.offset && better(text, old.name) {
					fresh[addresses[k]] = place{text, offset}
				}
			}
		}
	}
	for k, address := range addresses {
		if k > 0 && nearest[k-1].start > nearest[k].start {
			nearest[k] = nearest[k-1]
		}
		_, has := fresh[address]
		// A table of what is exported alone does not say what comes after.
		complete := elf.SectionType(table.Type) == elf.SHT_SYMTAB
		if n := nearest[k]; !has && complete && n.start != 0 && !n.sized &&
			address-n.start < maxUnsized && i.holds(n.section, address) {
			if text, ok := i.text(names, uint64(n.name)); ok {
				fresh[address] = place{text, address - n.start}
			}
		}
	}
	for address, place := range fresh {
		if _, has := found[address]; !has {
			found[address] = place
		}
	}
	return nil
}
