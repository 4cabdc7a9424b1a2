// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// verdict is what a square of the table says.
type verdict int

const (
	failed verdict = iota
	passed
	cannot // it cannot be on this kernel, for a reason that the table of kernels gives
)

func (v verdict) String() string { return []string{"FAIL", "pass", "cannot"}[v] }

// exitCannot is how synspy says that this kernel can't.
const exitCannot = 3

// cell is one square of the table.
type cell struct {
	kernel  string
	name    string // of a scenario or test binary
	backend string // testColumn for a test binary
	verdict verdict
	reason  string // why it cannot be: claimed by the table of kernels, or said by synspy
	skipped int    // tests that a passing test binary skipped
	took    time.Duration
	output  []byte
}

// keep writes what the square printed to KERNEL/BACKEND.NAME.txt.
func (c cell) keep(dir string) error {
	dir = filepath.Join(dir, c.kernel)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, c.backend+"."+c.name+".txt"), c.output, 0o644)
	}
	if err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	return nil
}

// judge fills in the verdict of something that ended with this status.
func (c *cell) judge(status int, on kernel) {
	var complaint string
	if claimed := on.reason(c.name, c.backend); claimed != "" || status != exitCannot {
		c.reason = claimed
	}
	c.verdict, complaint = judge(status, c.reason)
	if c.verdict == cannot && on.whole && c.backend != "tracepoint" {
		c.verdict, complaint = failed,
			"the table of kernels says that nothing is lacking here: "+c.reason
	}
	if status != 0 {
		c.output = fmt.Appendf(c.output, "\nexit status %d\n", status)
	}
	if complaint != "" {
		c.output = fmt.Appendf(c.output, "\n%s\n", complaint)
	}
}

// judge compares how a scenario ended with what the table of kernels claims. Both
// a kernel that can't where it should and one that can where it should not fail:
// a skip that nobody expects hides a fault, and one that nothing needs any more
// hides the next.
func judge(status int, reason string) (v verdict, complaint string) {
	switch {
	case reason != "" && status == exitCannot:
		return cannot, ""
	case reason != "" && status == 0:
		return failed, "it works, but the table of kernels says that it cannot be: " +
			reason
	case status == 0:
		return passed, ""
	case status == exitCannot:
		return failed, "it says that this kernel can't, and the table of kernels gives no reason for that"
	default:
		return failed, ""
	}
}
