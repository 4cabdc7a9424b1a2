// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrSymbolsHidden says that /proc/kallsyms shows addresses as zero, as it does
// with kernel.kptr_restrict=2 or without CAP_SYSLOG.
var ErrSymbolsHidden = errors.New("kernel symbol addresses are hidden")

// Range is a function's code, [Start, End).
type Range struct{ Start, End uint64 }

// CodeRanges finds the code of the named functions in /proc/kallsyms. One name
// may have several ranges: compilers split functions into name.cold and
// name.part.N. Functions this kernel lacks are absent from the result.
func CodeRanges(names ...string) (map[string][]Range, error) {
	wanted := make(map[string]string, len(names))
	for _, name := range names {
		wanted[name] = name
	}
	ranges := make(map[string][]Range, len(names))
	type open struct {
		name  string
		start uint64
	}
	var pending []open // whose end is the next symbol
	err := eachSymbol(func(address uint64, symbol []byte) error {
		if bytes.IndexByte(symbol, '\t') >= 0 {
			return nil // a module's
		}
		// The kernel lists its symbols in the order of their addresses.
		for len(pending) > 0 && pending[0].start < address {
			ranges[pending[0].name] = append(ranges[pending[0].name],
				Range{pending[0].start, address})
			pending = pending[1:]
		}
		if dot := bytes.IndexByte(symbol, '.'); dot >= 0 {
			symbol = symbol[:dot]
		}
		if name, ok := wanted[string(symbol)]; ok {
			if address == 0 {
				return ErrSymbolsHidden
			}
			pending = append(pending, open{name, address})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ranges, nil
}

// SymbolAt names the function whose code the address is in, modules' included, less
// what compilers append to pieces of it; empty if there is none. It reads all of
// /proc/kallsyms.
func SymbolAt(address uint64) (string, error) {
	found, err := SymbolsAt([]uint64{address})
	return found[address].Name, err
}

// SymbolsTake names what it takes to see where the kernel's code is; nil where that is seen, or
// cannot be asked.
func SymbolsTake() []string {
	seen := errors.New("seen")
	err := eachSymbol(func(address uint64, _ []byte) error {
		if address != 0 {
			return seen
		}
		return nil
	})
	if err != nil {
		return nil
	}
	if by := Powers(unix.CAP_SYSLOG); len(by) > 0 {
		return by
	}
	return []string{"sysctl kernel.kptr_restrict=1"}
}

// eachSymbol hands f the address and name of each piece of code in /proc/kallsyms; a
// module's is followed by a tab and the module. The name is valid during the call:
// there are over 100,000 lines, and none is copied.
func eachSymbol(f func(address uint64, name []byte) error) error {
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return fmt.Errorf("open kernel symbols: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Bytes() // address type name
		space := bytes.IndexByte(line, ' ')
		if space < 0 || len(line) < space+4 ||
			!bytes.ContainsRune([]byte("tTwW"), rune(line[space+1])) {
			continue
		}
		address, err := parseHex(line[:space])
		if err != nil {
			return err
		}
		if err := f(address, line[space+3:]); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read kernel symbols: %w", err)
	}
	return nil
}

func parseHex(digits []byte) (uint64, error) {
	var value uint64
	for _, digit := range digits {
		switch {
		case digit >= '0' && digit <= '9':
			digit -= '0'
		case digit >= 'a' && digit <= 'f':
			digit -= 'a' - 10
		default:
			return 0, fmt.Errorf("parse kernel symbols: address %q", digits)
		}
		value = value<<4 | uint64(digit)
	}
	return value, nil
}
