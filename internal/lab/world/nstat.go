// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Stats are a namespace's counters by their names in records: TcpExt bare,
// others prefixed, as TcpInCsumErrors.
type Stats map[string]uint64

// Stats reads all network counters of the namespace, those outside the closed
// list too. They say which branch of the kernel a packet took before it reached
// a listener.
func (w *World) Stats() (Stats, error) {
	all := make(Stats)
	err := w.Do(func() error {
		for _, name := range []string{"netstat", "snmp", "snmp6", "xfrm_stat"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // compiled out
			}
			if err != nil {
				return err
			}
			if err := all.parse(string(b)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return all, nil
}

// parse reads both forms: pairs of lines "TcpExt: names" and "TcpExt: values",
// and single lines "name value".
func (s Stats) parse(text string) error {
	var names []string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 2 && !strings.HasSuffix(fields[0], ":") {
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return err
			}
			s[fields[0]] = n
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		if len(fields) != len(names) {
			return fmt.Errorf("%d names and %d values", len(names), len(fields))
		}
		prefix := strings.TrimSuffix(strings.TrimSuffix(names[0], ":"), "TcpExt")
		for i := 1; i < len(names); i++ {
			n, err := strconv.ParseInt(fields[i], 10, 64) // TcpMaxConn is -1
			if err != nil {
				return err
			}
			s[prefix+names[i]] = uint64(n)
		}
		names = nil
	}
	return lines.Err()
}

// WantMoved fails unless the named counters moved by exactly that much. Nothing
// but the scenario's own packets is in its namespace. A counter that the kernel
// does not have says nothing.
func (w *World) WantMoved(before Stats, want Stats) error {
	after, err := w.Stats()
	if err != nil {
		return err
	}
	for name, n := range want {
		if _, ok := after[name]; ok && after[name]-before[name] != n {
			return fmt.Errorf("the kernel moved %s by %d, expected %d", name,
				after[name]-before[name], n)
		}
	}
	return nil
}
