// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is one of those that synspy needs, and what for.
type Capability struct {
	Name     string
	Bit      uint
	Why      string
	Optional bool // most of synspy works without it
	Without  []Loss
}

// Loss is what a command cannot do without a capability.
type Loss struct {
	Verb string `json:"verb"`
	Lost string `json:"lost"`
}

// NeededCapabilities lists them, least surprising first. CAP_SYS_ADMIN stands in for the first two,
// as on kernels before 5.8. What each is needed for was found by granting the others alone
// (cmd/synspy, TestCapabilities).
func NeededCapabilities() []Capability {
	programs := []Loss{
		{"trace", "does not run"}, {"diagnose", "does not run"}, {"lab", "does not run"},
		{"listeners", "SYN queues, and owners that /proc does not tell"},
	}
	return []Capability{
		{"CAP_BPF", unix.CAP_BPF, "load BPF programs and maps", false, programs},
		{"CAP_PERFMON", unix.CAP_PERFMON, "attach them to the kernel and read its memory",
			false, programs},
		{"CAP_SYSLOG", unix.CAP_SYSLOG,
			"read kernel symbol addresses, which the tracepoint backend needs", true, []Loss{
				{"trace",
					"the tracepoint backend; with another one, what dies before the listener"},
				{"diagnose",
					"the same; then healthy and no_syn_arrived are possible at most"},
			}},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE,
			"look at other users' processes: their calls, open files, namespaces and code", true, []Loss{
				{"trace",
					"--netns PID of another user's process, and the calls of its threads"},
				{"diagnose",
					"the calls of other users' threads: who accepts, and what stands in the way; what rests on that is possible at most"},
				{"listeners",
					"network namespaces that only other users' processes are in, and whether holders sleep"},
				{"counters", "network namespaces that only other users' processes are in"},
			}},
		{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH,
			"open what other users' processes show to their owner alone", true, []Loss{
				{"trace", "the calls of other users' threads"},
				{"diagnose",
					"the calls of other users' threads: who accepts, and what stands in the way; what rests on that is possible at most"},
				{"listeners",
					"whether holders of other users sleep; without BPF, who they are"},
			}},
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN,
			"enter other network namespaces, and read kernel stacks", true, []Loss{
				{"trace", "the kernel stacks of threads"},
				{"diagnose",
					"the kernel stacks of threads, and of other network namespaces the settings and devices; names of BPF programs"},
				{"listeners", "limits and drops in other network namespaces"},
				{"counters", "network namespaces that have a name and no process"},
				{"lab", "does not run"},
			}},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN,
			"ask network namespaces for their programs, rules and connections", true, []Loss{
				{"diagnose", "tcx and netkit programs, NAT rules and tracked connections"},
				{"lab", "does not run"},
			}},
	}
}

// EffectiveCapabilities returns this process's effective set as a bit mask.
func EffectiveCapabilities() (uint64, error) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return 0, fmt.Errorf("parse own capabilities: %w", err)
			}
			return set, nil
		}
	}
	return 0, fmt.Errorf("read own capabilities: no CapEff line")
}

// MissingCapabilities returns the needed capabilities that the set lacks,
// optional ones too.
func MissingCapabilities(set uint64) []Capability {
	var missing []Capability
	admin := set&(1<<unix.CAP_SYS_ADMIN) != 0
	for _, c := range NeededCapabilities() {
		if set&(1<<c.Bit) != 0 {
			continue
		}
		if admin && (c.Bit == unix.CAP_BPF || c.Bit == unix.CAP_PERFMON) {
			continue
		}
		missing = append(missing, c)
	}
	return missing
}
