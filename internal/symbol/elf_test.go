// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"runtime"
	"testing"
)

// ownImage is this test's executable, a Go binary.
func ownImage(t testing.TB) []byte {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// withoutSymbols blanks the symbol tables out, as -ldflags "-s -w" would.
func withoutSymbols(t testing.TB, raw []byte) []byte {
	t.Helper()
	raw = bytes.Clone(raw)
	table := binary.LittleEndian.Uint64(raw[0x28:])
	for n := range uint64(binary.LittleEndian.Uint16(raw[0x3c:])) {
		kind := raw[table+n*64+4:]
		switch elf.SectionType(binary.LittleEndian.Uint32(kind)) {
		case elf.SHT_SYMTAB, elf.SHT_DYNSYM:
			binary.LittleEndian.PutUint32(kind, uint32(elf.SHT_NULL))
		}
	}
	return raw
}

// TestGoTableAgreesWithTheRuntime asks both about all of this binary's code.
func TestGoTableAgreesWithTheRuntime(t *testing.T) {
	i, err := openImage(bytes.NewReader(withoutSymbols(t, ownImage(t))))
	if err != nil {
		t.Fatal(err)
	}
	table, ok := i.goTable(context.Background())
	if !ok {
		t.Fatal("no Go table in a Go binary")
	}
	text, _ := i.section(".text")
	compared, named := 0, 0
	for address := table.text; address < text.Addr+text.Size; address += 16 {
		got, ok := table.find(address)
		f := runtime.FuncForPC(uintptr(address))
		if f == nil {
			continue
		}
		compared++
		if !ok || address-got.offset != uint64(f.Entry()) {
			t.Fatalf("%#x is %+v, want %s from %#x", address, got, f.Name(), f.Entry())
		}
		if f.Name() == got.name { // else a function inlined in it
			named++
		}
	}
	if compared < 10000 || named < compared/3 {
		t.Errorf("of %d places compared %d have the same name", compared, named)
	}
	for _, address := range []uint64{0, table.text - 1, text.Addr + text.Size, 1<<64 - 1} {
		if got, ok := table.find(address); ok {
			t.Errorf("%#x is %+v, want nothing", address, got)
		}
	}
	if entry, ok := table.find(i.entry); !ok || entry.offset != 0 {
		t.Errorf("the entry point is %+v", entry)
	}
}

// TestGoTableKnowsItsStart: where C's startup comes first, no Go name is given rather than a wrong
// one.
func TestGoTableKnowsItsStart(t *testing.T) {
	raw := withoutSymbols(t, ownImage(t))
	i, err := openImage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	table, ok := i.goTable(context.Background())
	if !ok {
		t.Fatal("no Go table in a Go binary")
	}
	own := table.text
	// Without where it says so, it is known by the entry point.
	blank := func(address uint64) {
		for _, s := range i.sections {
			if s.Addr != 0 && address >= s.Addr && address-s.Addr < s.Size {
				binary.LittleEndian.PutUint64(raw[s.Off+address-s.Addr:], 0)
			}
		}
	}
	blank(table.place.Addr + 24)
	if module, ok := i.section(".go.module"); ok {
		blank(module.Addr)
	}
	if i, err = openImage(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	if table, ok = i.goTable(context.Background()); !ok || table.text != own {
		t.Errorf("by the entry point: %v, from %#x, want %#x", ok, table.text, own)
	}
	binary.LittleEndian.PutUint64(raw[0x18:], i.entry+1)
	if i, err = openImage(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	if _, ok := i.goTable(context.Background()); ok {
		t.Error("taken for a Go binary without C, with an entry point that is not Go's")
	}
}

// A made-up file: one segment with code, a symbol table, its strings.
func madeUp(t testing.TB, kind elf.SectionType, symbols []elf.Sym64, names string) []byte {
	t.Helper()
	const code, sectionNames = 0x1000, "\x00.symtab\x00.strtab\x00"
	var tail bytes.Buffer
	put := func(v any) uint64 {
		at := uint64(2*code + tail.Len())
		if err := binary.Write(&tail, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
		return at
	}
	symtab, strtab, shstrtab := put(symbols), put([]byte(names)), put([]byte(sectionNames))
	sections := put([]elf.Section64{
		{},
		{Name: 1, Type: uint32(kind), Off: symtab, Size: uint64(len(symbols)) * symbolSize,
			Link: 2, Entsize: symbolSize},
		{Name: 9, Type: uint32(elf.SHT_STRTAB), Off: strtab, Size: uint64(len(names))},
		{Name: 9, Type: uint32(elf.SHT_STRTAB), Off: shstrtab,
			Size: uint64(len(sectionNames))},
		{Type: uint32(elf.SHT_PROGBITS), Addr: 0x401100, Off: 0x1100, Size: 0x180},
	})
	var head bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Shoff: sections,
		Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: 5, Shstrndx: 3}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64),
		byte(elf.ELFDATA2LSB)
	segment := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Off: code, Vaddr: 0x401000, Filesz: code, Memsz: code}
	for _, v := range []any{header, segment} {
		if err := binary.Write(&head, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return append(append(head.Bytes(), make([]byte, 2*code-head.Len())...), tail.Bytes()...)
}

const (
	function = byte(elf.STT_FUNC)
	object   = byte(elf.STT_OBJECT)
)

var (
	someNames   = "\x00__first\x00first\x00variable\x00assembly\x00undefined\x00_ZN2ns4nameEi\x00"
	someSymbols = []elf.Sym64{
		{},
		{Name: 1, Info: function, Shndx: 1, Value: 0x401000, Size: 0x10},  // __first
		{Name: 9, Info: function, Shndx: 1, Value: 0x401000, Size: 0x10},  // first, its alias
		{Name: 15, Info: object, Shndx: 1, Value: 0x401010, Size: 0x10},   // variable
		{Name: 24, Info: function, Shndx: 4, Value: 0x401100},             // assembly, without a size
		{Name: 33, Info: function, Shndx: 0, Value: 0x401200, Size: 0x10}, // undefined
		{Name: 43, Info: function, Shndx: 1, Value: 0x401300, Size: 0x20}, // a C++ one
		{Name: 9999, Info: function, Shndx: 1, Value: 0x401400, Size: 0x20},
		{Name: 9, Info: function, Shndx: 1, Value: 0x401500, Size: 1<<64 - 1}, // overflows
	}
)

func TestSymbols(t *testing.T) {
	for _, test := range []struct {
		offset uint64 // in the file
		symtab string
		dynsym string
	}{
		{0x1000, "first", "first"},
		{0x100f, "first", "first"},
		{0x1010, "", ""},
		{0x1104, "assembly", ""}, // a table of exports alone may not have what comes after
		{0x1204, "assembly", ""},
		{0x1284, "", ""}, // past its section
		{0x131f, "ns::name", "ns::name"},
		{0x1320, "", ""},
		{0x1404, "", ""},
		{0x1501, "first", "first"},
	} {
		for kind, want := range map[elf.SectionType]string{elf.SHT_SYMTAB: test.symtab,
			elf.SHT_DYNSYM: test.dynsym} {
			got, err := lookUp(context.Background(),
				bytes.NewReader(madeUp(t, kind, someSymbols, someNames)), []uint64{
					test.offset})
			if err != nil {
				t.Fatal(err)
			}
			if name := readable(got[test.offset].place.name); name != want ||
				got[test.offset].address != test.offset+0x400000 {
				t.Errorf("%v: %#x is %q at %#x, want %q", kind, test.offset, name,
					got[test.offset].address, want)
			}
		}
	}
}

func TestAfterCall(t *testing.T) {
	for text, want := range map[string]bool{
		"\x90\x90\xe8\x01\x02\x03\x04": true,  // call rel32
		"\x90\x90\x90\x90\x90\xff\xd0": true,  // call *%rax
		"\x90\x90\x90\x90\x41\xff\xd4": true,  // call *%r12
		"\x90\x90\x90\x90\xff\x50\x08": true,  // call *8(%rax)
		"\x90\xff\x15\x01\x02\x03\x04": true,  // call *0x4030201(%rip)
		"\x90\x90\x90\x90\x90\xff\xe0": false, // jmp *%rax
		"\x90\x90\x90\x90\x90\x90\x90": false,
		"\x90\x90\x90\x90\x90\x0f\x05": false, // syscall
	} {
		i := image{file: bytes.NewReader([]byte(text)), machine: elf.EM_X86_64}
		if _, got := i.afterCall(7); got != want {
			t.Errorf("% x: %v, want %v", text, got, want)
		}
	}
	for instruction, want := range map[uint32]bool{0x97fffffc: true, 0xd63f0260: true,
		0xd61f0260: false, 0xd503201f: false,
		0xd73f0a11: true} { // bl, blr, br, nop, blraa
		i := image{file: bytes.NewReader(binary.LittleEndian.AppendUint32(make([]byte, 4),
			instruction)), machine: elf.EM_AARCH64}
		if _, got := i.afterCall(8); got != want {
			t.Errorf("%#x: %v, want %v", instruction, got, want)
		}
	}
}

func TestAfterCallTellsWhom(t *testing.T) {
	for text, want := range map[string]int64{"\x90\x90\xe8\xf0\xff\xff\xff": -16,
		"\x90\x90\xe8\x20\x00\x00\x00": 32,
		"\x90\x90\x90\x90\x90\xff\xd0": 0} {
		i := image{file: bytes.NewReader([]byte(text)), machine: elf.EM_X86_64}
		if got, _ := i.afterCall(7); got != want {
			t.Errorf("% x: %d, want %d", text, got, want)
		}
	}
	for instruction, want := range map[uint32]int64{0x97fffffc: -20, 0x94000004: 12} { // bl .-16, bl .+16
		i := image{file: bytes.NewReader(binary.LittleEndian.AppendUint32(make([]byte, 4),
			instruction)), machine: elf.EM_AARCH64}
		if got, _ := i.afterCall(8); got != want {
			t.Errorf("%#x: %d, want %d", instruction, got, want)
		}
	}
}

// FuzzLookUp: a hostile file neither crashes nor exhausts what names its code.
func FuzzLookUp(f *testing.F) {
	f.Add(madeUp(f, elf.SHT_SYMTAB, someSymbols, someNames))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, _ := lookUp(context.Background(), bytes.NewReader(raw),
			[]uint64{0, 0x1000, 0x1104, 1<<64 - 1})
		for _, c := range got {
			readable(c.place.name)
		}
	})
}
