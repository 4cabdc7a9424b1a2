// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Release returns what uname -r prints.
func Release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// OnlineCPUs lists the numbers of the CPUs that are running.
func OnlineCPUs() ([]int, error) {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("read online CPUs: %w", err)
	}
	return parseCPUList(strings.TrimSpace(string(text)))
}

// parseCPUList reads the kernel's form: 0-3,5,7-8.
func parseCPUList(text string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		first, err := strconv.Atoi(low)
		if err != nil {
			return nil, fmt.Errorf("parse CPU list %q: %w", text, err)
		}
		last, err := strconv.Atoi(high)
		if err != nil {
			return nil, fmt.Errorf("parse CPU list %q: %w", text, err)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// SecurityModules lists the active Linux security modules; none where the kernel does
// not say.
func SecurityModules() []string {
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(list)), ",")
}

// HasModule reports whether the kernel module is loaded; built-in code is no module.
func HasModule(name string) bool {
	_, err := os.Stat("/sys/module/" + name)
	return err == nil
}

// HostName returns what uname -n prints: in a container, the container's.
func HostName() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Nodename[:])
}

// BootID returns the random ID of this boot, empty where /proc does not tell it.
func BootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
