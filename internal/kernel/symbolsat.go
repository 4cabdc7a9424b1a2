// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"slices"
)

// Symbol is a place in the kernel's code.
type Symbol struct {
	Name   string // less what compilers append to pieces of a function
	Module string // empty: the kernel's own
	Offset uint64 // from the piece's start, bytes
}

// maxFunction is how long a piece of code may be. Symbols have no sizes: what is further from the
// one before belongs to something that has none.
const maxFunction = 1 << 18

// SymbolsAt names the functions whose code the addresses are in, in one pass over
// /proc/kallsyms. Addresses in no function are absent from the result.
func SymbolsAt(addresses []uint64) (map[uint64]Symbol, error) {
	wanted := slices.Clone(addresses)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	found := make(map[uint64]Symbol, len(wanted))
	if len(wanted) == 0 {
		return found, nil
	}
	// The best start for the first wanted address at or after it; for those after that one,
	// unless they have a better one of their own, too.
	type candidate struct {
		start uint64
		name  string
	}
	best := make([]candidate, len(wanted))
	shown := false
	err := eachSymbol(func(start uint64, symbol []byte) error {
		shown = shown || start != 0
		i, _ := slices.BinarySearch(wanted, start)
		if i < len(wanted) && start != 0 && start > best[i].start {
			best[i] = candidate{start, string(symbol)}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !shown {
		return nil, ErrSymbolsHidden
	}
	for i, address := range wanted {
		if i > 0 && best[i-1].start > best[i].start {
			best[i] = best[i-1]
		}
		offset := address - best[i].start
		if best[i].start == 0 || offset >= maxFunction {
			continue
		}
		found[address] = symbolOf(best[i].name, offset)
	}
	return found, nil
}

// symbolOf takes "name.cold\t[module]" apart.
func symbolOf(text string, offset uint64) Symbol {
	name, module, _ := bytes.Cut([]byte(text), []byte("\t"))
	if dot := bytes.IndexByte(name, '.'); dot > 0 {
		name = name[:dot]
	}
	return Symbol{Name: string(name), Module: string(bytes.Trim(module, "[]")), Offset: offset}
}
