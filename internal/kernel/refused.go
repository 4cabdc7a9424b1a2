// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Powers names those of these capabilities, which are among the needed ones, that this process does
// not have. A refusal that none of them explains is another's: a user namespace, whose capabilities
// count in it alone, or a security module.
func Powers(bits ...uint) []string {
	set, err := EffectiveCapabilities()
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range MissingCapabilities(set) {
		if slices.Contains(bits, c.Bit) {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 && !firstUserNamespace() {
		names = []string{"root of the first user namespace"}
	}
	return names
}

// processFiles are the files of another process below /proc/PID, and what the kernel asks of who
// reads them: their mode is often 0400, and ptrace_may_access, or, for kernel stacks since 4.20,
// CAP_SYS_ADMIN (proc_pid_stack), comes on top.
var processFiles = map[string][]uint{
	"syscall": {unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_PTRACE},
	"stack":   {unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN},
	"fd":      {unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_PTRACE},
	"fdinfo":  {unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_PTRACE},
	"ns":      {unix.CAP_SYS_PTRACE},
	"maps":    {unix.CAP_SYS_PTRACE},
}

// RefusedFile names what it takes to read a file below /proc/PID, such as "syscall", for which err
// came back; nil where it was not refused, such as of a process that is gone.
func RefusedFile(file string, err error) []string {
	if by := Exhausted(err); by != "" {
		return []string{by}
	}
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return nil
	}
	if by := HiddenProcesses(); by != "" && len(Powers(unix.CAP_SYS_PTRACE)) > 0 {
		return []string{seeHidden(by)}
	}
	takes := processFiles[file]
	if path := (*fs.PathError)(nil); errors.As(err, &path) && path.Op != "open" { // its mode let us in
		takes = slices.DeleteFunc(slices.Clone(takes), func(bit uint) bool {
			return bit == unix.CAP_DAC_READ_SEARCH
		})
	}
	if by := Powers(takes...); len(by) > 0 {
		return by
	}
	return []string{"what a security module does not allow: /proc/PID/" + file}
}

// HiddenProcess names what it takes to see /proc/PID of a process that lives, but is not there for
// this one; nil where it is gone. It has a number in this PID namespace, so that kill finds it.
func HiddenProcess(pid uint32) []string {
	if err := unix.Kill(int(pid), 0); errors.Is(err, unix.ESRCH) {
		return nil
	}
	if by := HiddenProcesses(); by != "" {
		return []string{seeHidden(by)}
	}
	return []string{"/proc of this PID namespace"}
}

// ShowsAllProcesses reports whether /proc shows every process of this machine.
func ShowsAllProcesses() bool {
	return SeesAllProcesses() &&
		(HiddenProcesses() == "" || len(Powers(unix.CAP_SYS_PTRACE)) == 0)
}

func seeHidden(by string) string { return "CAP_SYS_PTRACE (/proc is mounted with " + by + ")" }

func firstUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
}

// HiddenProcesses is the mount option that hides other users' processes in /proc, "hidepid=2", or
// empty.
func HiddenProcesses() string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	return hiddenBy(string(text))
}

// hiddenBy finds the last mount on /proc, which is the one that shows.
func hiddenBy(mountinfo string) (option string) {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		f, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || f[4] != "/proc" || len(super) < 3 || super[0] != "proc" {
			continue
		}
		option = ""
		for o := range strings.SplitSeq(super[2], ",") {
			if value, ok := strings.CutPrefix(o, "hidepid="); ok && value != "0" &&
				value != "off" {
				option = o
			}
		}
	}
	return option
}
