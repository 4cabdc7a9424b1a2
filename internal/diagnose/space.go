// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"strconv"
)

// Enter is how a network namespace can be entered: by its name below /run/netns, or through a process in it.
type Enter struct {
	Name string `json:"name,omitempty"`
	PID  uint32 `json:"pid,omitempty"`
}

// command is what goes before a command that is to run in the namespace; empty where no way in is known.
func (e Enter) command() string {
	switch {
	case plain(e.Name):
		return "ip netns exec " + e.Name + " "
	case e.PID != 0:
		return fmt.Sprintf("nsenter -t %d -n ", e.PID)
	}
	return ""
}

// called names the namespace in a sentence: by name, or by its number and how it is entered.
func (e Enter) called(inode uint64) string {
	number := strconv.FormatUint(inode, 10)
	switch {
	case e.Name != "":
		return Said(e.Name)
	case e.PID != 0:
		return fmt.Sprintf("%s (nsenter -t %d -n)", number, e.PID)
	}
	return number
}

// inSpace ends a sentence with where that is; empty for synspy's own namespace, and where it is not known.
func (e Enter) inSpace(inode uint64, own bool) string {
	if own || inode == 0 {
		return ""
	}
	if e.Name != "" {
		return " in network namespace " + Said(e.Name)
	}
	return " in network namespace " + strconv.FormatUint(inode, 10)
}

func (d *Death) inSpace() string     { return d.Enter.inSpace(d.NetNS, d.Own) }
func (l *Elsewhere) inSpace() string { return l.Enter.inSpace(l.Listener.NetNS, l.Own) }

// space names the namespace of a death.
func (d *Death) space() string { return d.Enter.called(d.NetNS) }

// sawPlace cites where a death was: the namespace, with how it is entered, and the device that the packet came in by.
func (f *found) sawPlace(d *Death) {
	switch {
	case d.Own && d.NetNS != 0:
		f.saw("network namespace", d.space()+", synspy's own", "")
	case d.NetNS != 0:
		f.saw("network namespace", d.space(), "")
	}
	if d.Device != "" {
		f.saw("device", Said(d.Device), "")
	}
}
