// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"strconv"
)

// Command is what goes before a command that is to run in the namespace; empty where no way in is
// known.
func (e Enter) Command() string {
	switch {
	case Plain(e.Name):
		return "ip netns exec " + e.Name + " "
	case e.PID != 0:
		return fmt.Sprintf("nsenter -t %d -n ", e.PID)
	}
	return ""
}

// Called names the namespace in a sentence: by name, or by its number and how it is entered.
func (e Enter) Called(inode uint64) string {
	number := strconv.FormatUint(inode, 10)
	switch {
	case e.Name != "":
		return Said(e.Name)
	case e.PID != 0:
		return fmt.Sprintf("%s (nsenter -t %d -n)", number, e.PID)
	}
	return number
}

// InSpace ends a sentence with where that is; empty for synspy's own namespace, and where it is not
// known.
func (e Enter) InSpace(inode uint64, own bool) string {
	if own || inode == 0 {
		return ""
	}
	if e.Name != "" {
		return " in network namespace " + Said(e.Name)
	}
	return " in network namespace " + strconv.FormatUint(inode, 10)
}

// InSpace says how to run a command where it died.
func (d *Death) InSpace() string { return d.Enter.InSpace(d.NetNS, d.Own) }

// InSpace says how to run a command where it listens.
func (l *Elsewhere) InSpace() string { return l.Enter.InSpace(l.Listener.NetNS, l.Own) }

// Space names the namespace of a death.
func (d *Death) Space() string { return d.Enter.Called(d.NetNS) }
