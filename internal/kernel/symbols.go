package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
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
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("open kernel symbols: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	type found struct {
		name  string
		start uint64
	}
	var (
		starts  []uint64
		matches []found
	)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || len(fields) > 3 || !strings.ContainsAny(fields[1], "tTwW") {
			continue // a module's symbol, or no code
		}
		address, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("parse kernel symbols: %w", err)
		}
		starts = append(starts, address)
		name, _, _ := strings.Cut(fields[2], ".")
		if slices.Contains(names, name) {
			matches = append(matches, found{name, address})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	slices.Sort(starts)
	ranges := make(map[string][]Range, len(names))
	for _, match := range matches {
		if match.start == 0 {
			return nil, ErrSymbolsHidden
		}
		next, _ := slices.BinarySearch(starts, match.start+1)
		if next == len(starts) {
			continue
		}
		ranges[match.name] = append(ranges[match.name], Range{match.start, starts[next]})
	}
	return ranges, nil
}
