// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"context"
	"debug/elf"
)

const relocationSize = 24

// word is the number at an address, as it is once the file is loaded at zero.
func (i *image) word(ctx context.Context, address uint64) (uint64, bool) {
	relative := map[elf.Machine]uint32{elf.EM_X86_64: uint32(elf.R_X86_64_RELATIVE),
		elf.EM_AARCH64: uint32(elf.R_AARCH64_RELATIVE)}
	buffer := make([]byte, 4096*relocationSize)
	for _, s := range i.sections {
		if elf.SectionType(s.Type) != elf.SHT_RELA || s.Entsize != relocationSize ||
			s.Size > maxSymbolBytes {
			continue
		}
		for at := uint64(0); at+relocationSize <= s.Size && ctx.Err() == nil; {
			chunk := buffer[:min(uint64(len(buffer)),
				(s.Size-at)/relocationSize*relocationSize)]
			if n, _ := i.file.ReadAt(chunk, int64(s.Off+at)); n < len(chunk) {
				break
			}
			at += uint64(len(chunk))
			for ; len(chunk) > 0; chunk = chunk[relocationSize:] {
				if i.order.Uint64(chunk) != address {
					continue
				}
				kind := elf.R_TYPE64(i.order.Uint64(chunk[8:]))
				return i.order.Uint64(chunk[16:]), kind == relative[i.machine]
			}
		}
	}
	for _, s := range i.sections {
		if s.Addr == 0 || elf.SectionType(s.Type) != elf.SHT_PROGBITS || address < s.Addr ||
			address-s.Addr >= s.Size {
			continue
		}
		var value uint64
		err := i.read(s.Off+address-s.Addr, &value)
		return value, err == nil
	}
	return 0, false
}
