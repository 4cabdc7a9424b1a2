// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"encoding/binary"
	"sort"
	"strings"
)

// The table that the Go runtime finds its functions by is in every Go binary, stripped or not. It
// is searched in the file: debug/gosym would decode all of it, which takes tens of megabytes, and
// takes the text section's start for the first Go function's, which is wrong where C is linked in.

// Magic numbers of internal/abi/symtab.go. Before 1.18 the table had other shapes.
const (
	magicGo118 = 0xfffffff0
	magicGo120 = 0xfffffff1
)

// goHeader is runtime.pcHeader on 64 bits.
type goHeader struct {
	Magic      uint32
	_          [2]byte
	_          uint8 // smallest instruction
	Pointer    uint8 // bytes
	Functions  uint64
	_          uint64 // files
	_          uint64 // where the first function is, up to 1.25
	Names      uint64
	_, _, _    uint64
	TableStart uint64
}

type goTable struct {
	image  *image
	header goHeader
	place  section
	text   uint64 // address of the first function
}

// goFunctions names those of the addresses that are in Go functions and have no name yet.
func (i *image) goFunctions(ctx context.Context, addresses []uint64, found map[uint64]place) error {
	table, ok := i.goTable(ctx)
	if !ok {
		return nil
	}
	for _, address := range addresses {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, has := found[address]; has {
			continue
		}
		if p, ok := table.find(address); ok {
			found[address] = p
		}
	}
	return nil
}

func (i *image) goTable(ctx context.Context) (*goTable, bool) {
	t := &goTable{image: i}
	var ok bool
	if t.place, ok = i.section(".gopclntab", ".data.rel.ro.gopclntab"); !ok {
		return nil, false
	}
	if i.read(t.place.Off, &t.header) != nil || t.header.Pointer != 8 ||
		t.header.Magic != magicGo118 && t.header.Magic != magicGo120 {
		return nil, false
	}
	if t.findText(ctx) {
		return t, true
	}
	// Functions are counted from runtime.text, which is the section's start unless C's own
	// startup comes first. Then the entry point is C's as well.
	code, ok := i.section(".text")
	if !ok {
		return nil, false
	}
	t.text = code.Addr
	entry, ok := t.find(i.entry)
	return t, ok && entry.offset == 0 && strings.HasPrefix(entry.name, "_rt0_")
}

// Words of runtime.moduledata, which has a section of its own since 1.26. The first one is the
// address of the table's header, by which it is known to be it.
const (
	moduleMinPC = 20
	moduleText  = 22
)

// findText looks for where the first function is, where the binary says so: in the header up to
// 1.25, then in the module's data. In a PIE both are relocated.
func (t *goTable) findText(ctx context.Context) bool {
	if text, ok := t.image.word(ctx, t.place.Addr+24); ok && text != 0 {
		t.text = text
		return true
	}
	module, ok := t.image.section(".go.module")
	if !ok || module.Size < (moduleText+1)*8 {
		return false
	}
	header, ok1 := t.image.word(ctx, module.Addr)
	first, ok2 := t.image.word(ctx, module.Addr+moduleMinPC*8)
	text, ok3 := t.image.word(ctx, module.Addr+moduleText*8)
	offset, ok4 := t.bytes(t.header.TableStart, 4)
	t.text = text
	return ok1 && ok2 && ok3 && ok4 && text != 0 && header == t.place.Addr &&
		first == text+uint64(offset)
}

// find searches the table, which is sorted: pairs of a function's start and of where more is said
// about it, closed by the end of the last one.
func (t *goTable) find(address uint64) (place, bool) {
	const pair = 8
	if t.header.Functions > t.place.Size/pair || address < t.text || address-t.text > 1<<32-1 {
		return place{}, false
	}
	want, broken := uint32(address-t.text), false
	start := func(n int) uint32 {
		raw, ok := t.bytes(t.header.TableStart+uint64(n)*pair, 4)
		broken = broken || !ok
		return raw
	}
	count := int(t.header.Functions)
	after := sort.Search(count+1, func(n int) bool { return start(n) > want })
	if broken || after == 0 || after > count {
		return place{}, false
	}
	where, ok := t.bytes(t.header.TableStart+uint64(after-1)*pair+4, 4)
	if !ok {
		return place{}, false
	}
	// The function's own record begins with its start, too, and goes on with its name.
	begins, ok1 := t.bytes(t.header.TableStart+uint64(where), 4)
	name, ok2 := t.bytes(t.header.TableStart+uint64(where)+4, 4)
	if !ok1 || !ok2 || begins != start(after-1) || t.header.Names > t.place.Size {
		return place{}, false
	}
	text, ok := t.image.text(t.place, t.header.Names+uint64(name))
	return place{text, uint64(want - begins)}, ok
}

// bytes reads a number of the table.
func (t *goTable) bytes(at uint64, size int) (uint32, bool) {
	raw := make([]byte, size)
	if at > t.place.Size-uint64(size) || t.place.Size < uint64(size) {
		return 0, false
	}
	if _, err := t.image.file.ReadAt(raw, int64(t.place.Off+at)); err != nil {
		return 0, false
	}
	return binary.ByteOrder.Uint32(t.image.order, raw), true
}
