// SPDX-License-Identifier: Apache-2.0

package symbol

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// mapping is a piece of a process's memory that holds code.
type mapping struct {
	start, end uint64 // addresses, [start, end)
	offset     uint64 // of start in the file
	device     string // "major:minor"
	inode      uint64 // 0: no file
	path       string // as the process sees it; "[vdso]" and the like; may be empty
}

// contains reports whether the address is in it.
func (m *mapping) contains(address uint64) bool { return address >= m.start && address < m.end }

// Limits of what is read of /proc/PID/maps.
const (
	maxMappings  = 1 << 14 // with code
	maxMapsBytes = 1 << 24
	maxMapsLine  = 1 << 13 // more than a path of 4096 with octal escapes where they are usual
)

// parseMaps reads the mappings with code from /proc/PID/maps, in the order of their addresses.
// Lines that are not understood are passed over.
func parseMaps(r io.Reader) ([]mapping, error) {
	var mappings []mapping
	lines := bufio.NewReaderSize(io.LimitReader(r, maxMapsBytes), maxMapsLine)
	for len(mappings) < maxMappings {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
			continue
		}
		if m, ok := parseMapping(line); ok {
			mappings = append(mappings, m)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read mappings: %w", err)
		}
	}
	slices.SortStableFunc(mappings, func(a, b mapping) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return 0
	})
	return mappings, nil
}

// parseMapping reads "start-end perms offset device inode path"; false if it holds no code.
func parseMapping(line []byte) (mapping, bool) {
	var fields [5][]byte
	rest := bytes.TrimSuffix(line, []byte("\n"))
	for i := range fields {
		var ok bool
		if fields[i], rest, ok = bytes.Cut(rest, []byte(" ")); !ok && i < len(fields)-1 {
			return mapping{}, false
		}
	}
	if len(fields[1]) < 3 || fields[1][2] != 'x' {
		return mapping{}, false
	}
	from, to, _ := strings.Cut(string(fields[0]), "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	offset, err3 := strconv.ParseUint(string(fields[2]), 16, 64)
	inode, err4 := strconv.ParseUint(string(fields[4]), 10, 64)
	if errors.Join(err1, err2, err3, err4) != nil || end <= start ||
		offset+(end-start) < offset {
		return mapping{}, false
	}
	path := strings.TrimLeft(string(rest), " ")
	// The kernel escapes a newline, and nothing else.
	path = strings.ReplaceAll(path, `\012`, "\n")
	return mapping{start, end, offset, string(fields[3]), inode, path}, true
}

// find returns the mapping that the address is in, nil if that is no code.
func find(mappings []mapping, address uint64) *mapping {
	i, found := slices.BinarySearchFunc(mappings, address, func(m mapping, address uint64) int {
		switch {
		case m.start < address:
			return -1
		case m.start > address:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 || !mappings[i].contains(address) {
		return nil
	}
	return &mappings[i]
}

// module is how the mapping is called in a frame.
func (m *mapping) module() string { return Clean(strings.TrimSuffix(m.path, " (deleted)")) }
