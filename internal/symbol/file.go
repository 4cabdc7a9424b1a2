package symbol

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"io"
	"slices"
)

// code is what a file says about one of its offsets.
type code struct {
	place   place
	address uint64 // as the file counts
	stray   bool   // no call comes just before the byte after it
}

// fileCode is what a file says, by offset.
type fileCode map[uint64]code

// file names places in a mapped file by their offsets.
func (r *resolver) file(ctx context.Context, id fileID, offsets []uint64) fileCode {
	file := r.files[id]
	if file == nil {
		return nil
	}
	found, err := within(ctx, func(ctx context.Context) (fileCode, error) { return lookUp(ctx, file, offsets) })
	if err != nil {
		r.log.Debug("naming code of a file", "file", file.Name(), "err", err)
	}
	return found
}

func lookUp(ctx context.Context, file io.ReaderAt, offsets []uint64) (fileCode, error) {
	i, err := openImage(file)
	if err != nil {
		return nil, err
	}
	found := make(fileCode, len(offsets))
	var addresses []uint64
	for _, offset := range offsets {
		address, ok := i.address(offset)
		if !ok {
			continue
		}
		found[offset] = code{address: address, stray: !i.afterCall(offset + 1)}
		addresses = append(addresses, address)
	}
	slices.Sort(addresses)
	named, err := i.functions(ctx, slices.Compact(addresses))
	for offset, c := range found {
		c.place = named[c.address]
		// runtime.goexit is returned to without being called: to its second instruction.
		if c.place.name == "runtime.goexit" || c.place.name == "runtime.goexit.abi0" {
			c.stray = false
		}
		found[offset] = c
	}
	return found, err
}

// afterCall tells whether a call may end at that offset of the file. A walk by frame pointers through code
// that keeps none meets anything.
func (i *image) afterCall(offset uint64) bool {
	const longest = 7
	if offset < longest {
		return false
	}
	var b [longest]byte
	if _, err := i.file.ReadAt(b[:], int64(offset-longest)); err != nil {
		return false
	}
	switch i.machine {
	case elf.EM_X86_64:
		if b[2] == 0xe8 { // call with a relative address
			return true
		}
		for _, length := range []int{2, 3, 4, 6, 7} { // call by register or memory
			if b[longest-length] == 0xff && b[longest-length+1]>>3&7 == 2 {
				return true
			}
		}
		return false
	case elf.EM_AARCH64:
		ins := binary.LittleEndian.Uint32(b[longest-4:])
		return ins>>26 == 0x25 || ins&0xfffffc1f == 0xd63f0000 || ins&0xfefff800 == 0xd63f0800 // bl, blr, blra*
	}
	return true
}
