// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// What a machine takes beside its memory: the emulator with its translated code,
// and the initramfs that it is given.
const machineOverhead = 512 << 20

// machinesAtATime is how many machines this one carries: as many as it has CPUs
// (a guest has two, of which tests keep little more than one busy) and as fit into
// the memory that is free.
func machinesAtATime(guest string) (int, error) {
	size, err := parseSize(guest)
	if err != nil {
		return 0, err
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("find free memory: %w", err)
	}
	free, err := availableMemory(meminfo)
	if err != nil {
		return 0, err
	}
	return max(1, min(runtime.NumCPU(), int(free/(size+machineOverhead)))), nil
}

// availableMemory reads MemAvailable, in bytes, of /proc/meminfo.
func availableMemory(meminfo []byte) (int64, error) {
	for line := range bytes.Lines(meminfo) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "MemAvailable:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read free memory: %w", err)
		}
		return kib << 10, nil
	}
	return 0, errors.New("read free memory: no MemAvailable in /proc/meminfo")
}

// parseSize reads a size as QEMU does: 2G, 512M, or a bare number of megabytes.
func parseSize(text string) (int64, error) {
	shift, digits := 20, text
	for suffix, by := range map[string]int{"K": 10, "M": 20, "G": 30} {
		if before, ok := strings.CutSuffix(strings.ToUpper(text), suffix); ok {
			shift, digits = by, before
		}
	}
	number, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || number <= 0 {
		return 0, fmt.Errorf("%w: no amount of memory: %q", errUsage, text)
	}
	return number << shift, nil
}

// foreign reports whether a guest runs other programs than this machine.
func foreign(arch string) bool { return arch != runtime.GOARCH }

// elfMachines are the architectures of the guests.
var elfMachines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// programFor gives the program to put into a guest: path, or, where that was
// built for another architecture, its namesake in the directory of the guest's:
// bin/arm64/synspy beside bin/synspy.
func programFor(path, arch string) (string, error) {
	right, err := isProgramFor(path, arch)
	if err != nil {
		return "", err
	}
	if right {
		return path, nil
	}
	other := filepath.Join(filepath.Dir(path), arch, filepath.Base(path))
	right, err = isProgramFor(other, arch)
	if err == nil && !right {
		err = fmt.Errorf("%s is for another architecture", other)
	}
	if err != nil {
		return "", &hintError{
			err: fmt.Errorf("find %s for %s: %w", filepath.Base(path), arch, err),
			hint: "build it like " + path + ", with CGO_ENABLED=0 GOARCH=" + arch +
				", as " + other,
		}
	}
	return other, nil
}

func isProgramFor(path, arch string) (bool, error) {
	program, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("read program: %w", err)
	}
	defer program.Close()
	return program.Machine == elfMachines[arch], nil
}
