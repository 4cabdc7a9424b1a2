// SPDX-License-Identifier: Apache-2.0

package event

// Origin is the run of synspy that records come from, and the machine that it watched. What is
// unknown is absent.
type Origin struct {
	Run    string `json:"run,omitempty"`     // random, of this run alone
	Host   string `json:"host,omitempty"`    // as uname -n has it
	BootID string `json:"boot_id,omitempty"` // kernel.random.boot_id: sockets, namespaces and PIDs are numbers of one boot
	Program
}

// Program is a synspy that was run.
type Program struct {
	Version string `json:"version,omitempty"`
	Command string `json:"command,omitempty"` // the command line, as a shell takes it
}
