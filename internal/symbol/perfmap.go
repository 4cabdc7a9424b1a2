// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
)

// Limits of a perf map.
const (
	maxPerfMapBytes = 1 << 28
	maxPerfMapLine  = 1 << 12 // what is longer is cut
	perfMapModule   = "[jit]"
)

// readPerfMap names the addresses, which are sorted, by a perf map: "start size name", in
// hexadecimal, one piece of code a line. Runtimes only append to it, so of several that an address
// is in the last one holds. What is not understood is passed over.
func readPerfMap(ctx context.Context, r io.Reader, addresses []uint64) (map[uint64]place, error) {
	found := make(map[uint64]place)
	lines := bufio.NewReaderSize(io.LimitReader(r, maxPerfMapBytes), maxPerfMapLine)
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return found, ctx.Err()
		}
		line, err := lines.ReadSlice('\n')
		start, size, name, ok := parsePerfMapLine(line)
		if ok {
			first, _ := slices.BinarySearch(addresses, start)
			for k := first; k < len(addresses) && addresses[k]-start < size; k++ {
				found[addresses[k]] = place{string(name), addresses[k] - start}
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
	}
}

func parsePerfMapLine(line []byte) (start, size uint64, name []byte, ok bool) {
	from, rest, ok1 := bytes.Cut(line, []byte(" "))
	length, name, ok2 := bytes.Cut(rest, []byte(" "))
	name = bytes.TrimSpace(name)
	if !ok1 || !ok2 || len(name) == 0 {
		return 0, 0, nil, false
	}
	start, err1 := strconv.ParseUint(string(bytes.TrimPrefix(from, []byte("0x"))), 16, 64)
	size, err2 := strconv.ParseUint(string(bytes.TrimPrefix(length, []byte("0x"))), 16, 64)
	return start, size, name, err1 == nil && err2 == nil && size > 0 && start+size > start
}
