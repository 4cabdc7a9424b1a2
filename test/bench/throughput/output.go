// SPDX-License-Identifier: Apache-2.0

package throughput

import (
	"bytes"
	"encoding/json"
	"strings"
)

// readJSON counts drop records, and drops accounted for, in synspy's output.
func readJSON(out []byte) (printed, counted int) {
	for line := range bytes.Lines(out) {
		var record struct {
			Type  string `json:"type"`
			Count int    `json:"count"`
		}
		if json.Unmarshal(line, &record) != nil {
			continue // the last line, cut off
		}
		switch record.Type {
		case "drop":
			printed++
			counted++
		case "suppressed", "lost":
			counted += record.Count
		}
	}
	return printed, counted
}

// readBackend finds the backend in synspy's first record.
func readBackend(out []byte) string {
	first, _, _ := bytes.Cut(out, []byte("\n"))
	var ready struct{ Type, Backend string }
	if json.Unmarshal(first, &ready) != nil || ready.Type != "ready" {
		return ""
	}
	return ready.Backend
}

// summary is what matters here of synspy's last record.
type summary struct {
	Type       string `json:"type"`
	Delivered  int    `json:"delivered"`
	Suppressed int    `json:"suppressed"`
	Lost       int    `json:"lost"`
	Balanced   bool   `json:"balanced"`
	Counts     []struct {
		Count int `json:"count"`
	} `json:"counts"`
}

// total is the number of drops the summary counts.
func (s summary) total() (n int) {
	for _, c := range s.Counts {
		n += c.Count
	}
	return n
}

// readSummary finds the summary in synspy's output.
func readSummary(out []byte) (s summary, ok bool) {
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte(`"type":"summary"`)) {
			return s, json.Unmarshal(line, &s) == nil
		}
	}
	return s, false
}

// readScript counts the lines that the bpftrace script has printed for drops: it
// accounts for no others before it ends.
func readScript(out []byte) (printed, counted int) {
	for line := range strings.Lines(string(out)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		if f := strings.Fields(line); len(f) > 2 && (f[1] == "SYN" || f[1] == "ACK") {
			printed++
		}
	}
	return printed, printed
}

// scriptTotal adds up the totals that the script prints at its end, lines like
// "@total[0, 1, 8080]: 45000".
func scriptTotal(out []byte) (total int) {
	for line := range bytes.Lines(out) {
		if _, value, ok := bytes.Cut(line, []byte("]: ")); ok && bytes.HasPrefix(line, []byte("@total[")) {
			var n int
			if json.Unmarshal(bytes.TrimSpace(value), &n) == nil {
				total += n
			}
		}
	}
	return total
}
