// SPDX-License-Identifier: Apache-2.0

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
	callee  string // the function that this call calls, if its code says so
}

// fileCode is what a file says, by offset.
type fileCode map[uint64]code

// file names places in a mapped file by their offsets.
func (r *resolver) file(ctx context.Context, id fileID, offsets []uint64) fileCode {
	file := r.files[id]
	if file == nil {
		return nil
	}
	found, err := within(ctx, func(ctx context.Context) (fileCode, error) {
		return lookUp(ctx, file, offsets)
	})
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
	targets := make(map[uint64]uint64)
	for _, offset := range offsets {
		address, ok := i.address(offset)
		if !ok {
			continue
		}
		distance, calls := i.afterCall(offset + 1)
		found[offset] = code{address: address, stray: !calls}
		addresses = append(addresses, address)
		if distance != 0 {
			targets[offset] = address + 1 + uint64(distance)
			addresses = append(addresses, targets[offset])
		}
	}
	slices.Sort(addresses)
	named, err := i.functions(ctx, slices.Compact(addresses))
	for offset, c := range found {
		c.place = named[c.address]
		// runtime.goexit is returned to without being called: to its second instruction.
		if c.place.name == "runtime.goexit" || c.place.name == "runtime.goexit.abi0" {
			c.stray = false
		}
		if callee := named[targets[offset]]; callee.offset == 0 {
			c.callee = callee.name
		}
		found[offset] = c
	}
	return found, err
}

// afterCall reports whether a call may end at that offset of the file. A walk by frame pointers
// through code that keeps none meets anything. Where the call itself says whom it calls, distance
// is from its end to there.
func (i *image) afterCall(offset uint64) (distance int64, calls bool) {
	const longest = 7
	if offset < longest {
		return 0, false
	}
	var b [longest]byte
	if _, err := i.file.ReadAt(b[:], int64(offset-longest)); err != nil {
		return 0, false
	}
	switch i.machine {
	case elf.EM_X86_64:
		for _, length := range []int{2, 3, 4, 6, 7} { // call by register or memory
			if b[longest-length] == 0xff && b[longest-length+1]>>3&7 == 2 {
				// These bytes may be the end of a direct call's as well: then it is
				// not known which.
				return 0, true
			}
		}
		if b[2] == 0xe8 { // call with a relative address
			return int64(int32(binary.LittleEndian.Uint32(b[3:]))), true
		}
		return 0, false
	case elf.EM_AARCH64:
		ins := binary.LittleEndian.Uint32(b[longest-4:])
		if ins>>26 == 0x25 { // bl; from the instruction's start, in words
			return int64(int32(ins<<6)>>6)*4 - 4, true
		}
		return 0, ins&0xfffffc1f == 0xd63f0000 || ins&0xfefff800 == 0xd63f0800 // blr, blra*
	}
	return 0, true
}
