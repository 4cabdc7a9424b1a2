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
}

// NeededCapabilities lists them, least surprising first. CAP_SYS_ADMIN stands
// in for the first two, as on kernels before 5.8.
func NeededCapabilities() []Capability {
	return []Capability{
		{"CAP_BPF", unix.CAP_BPF, "load BPF programs and maps", false},
		{"CAP_PERFMON", unix.CAP_PERFMON, "attach them to the kernel and read its memory", false},
		{"CAP_SYSLOG", unix.CAP_SYSLOG, "read kernel symbol addresses, which the tracepoint backend needs", true},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "find other users' namespaces by PID or inode", true},
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
