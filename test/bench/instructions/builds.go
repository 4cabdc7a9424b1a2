// SPDX-License-Identifier: Apache-2.0

package instructions

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// builds is what decides how many instructions something takes, besides synspy.
type builds struct {
	Kernel string `json:"kernel"` // version of Debian's package and release
	Clang  string `json:"clang"`  // the one that make generate uses
	QEMU   string `json:"qemu"`
}

// findBuilds asks what the machine would be booted with, and what is installed here.
func findBuilds(ctx context.Context, vm, kernel string) (builds, error) {
	// The kernel's name, version, release and file.
	out, err := exec.CommandContext(ctx, vm, "fetch", kernel).Output()
	if err != nil {
		return builds{}, fmt.Errorf("fetch kernel %s: %w", kernel, err)
	}
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return builds{}, fmt.Errorf("fetch kernel %s: %s says %q", kernel, vm, out)
	}
	return builds{
		Kernel: fields[1] + " " + fields[2],
		Clang:  firstLine(ctx, "clang-19"),
		QEMU:   firstLine(ctx, "qemu-system-x86_64"),
	}, nil
}

// firstLine is how a program calls its version; "unknown" where there is none.
func firstLine(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
